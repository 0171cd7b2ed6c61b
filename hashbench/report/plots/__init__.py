"""Plots, one module per kind; `hashbench.cli.plot` has a command for each."""
