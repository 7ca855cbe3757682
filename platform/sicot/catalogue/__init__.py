"""Products as they come: what a row is, and where rows come from."""
