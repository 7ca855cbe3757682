"""What a search is worth."""
