"""The HTTP side of the recognizer: what a request is, what an answer is, and how a request goes wrong."""
