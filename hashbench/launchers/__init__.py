"""Launchers, which carry out the runs of a grid in several processes or as jobs of a cluster."""

LAUNCHED = "HASHBENCH_LAUNCHED"
"""Environment variable of the commands that launchers start, which have checked the whole grid."""
