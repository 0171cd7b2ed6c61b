"""Counts of items per distance, computed from pairs of codes."""
