"""Co-training: the plain PyTorch loop, and how Ray Train runs it on many workers."""
