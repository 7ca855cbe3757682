"""Ray Tune's search of attention and loss weights."""
