"""Datasets: protocols, lists, downloads, packed copies and checks."""
