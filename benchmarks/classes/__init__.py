"""What the number of classes costs."""
