"""The ladder: which parts of the recognizer pay, and what else one could do, on one data set at one budget."""
