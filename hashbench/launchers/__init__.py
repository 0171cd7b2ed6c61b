"""Launchers, which carry out the runs of a grid in several processes or as jobs of a cluster."""
