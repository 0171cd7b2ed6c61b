"""Datasets: protocols, list files, downloads, packed copies and verification."""
