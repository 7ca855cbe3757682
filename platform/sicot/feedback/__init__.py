"""What became of answers: who was answered by which model, what people said of it, and what follows from that."""
