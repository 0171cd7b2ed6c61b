"""What every method is derived from, and what several of them share."""
