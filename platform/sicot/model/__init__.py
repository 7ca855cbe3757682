"""SICoT as tensors: streams, attention, fusion, shared classifier, losses. Imports torch alone."""
