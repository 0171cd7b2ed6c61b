"""Plots of runs, as PDF and PNG."""
