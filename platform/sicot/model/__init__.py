"""SICoT as tensors: streams, attention, fusion, shared classifier, losses. Knows neither Ray nor files."""
