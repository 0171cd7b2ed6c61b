"""The commands that train: `run` and `ablate`, and the grid of runs behind them."""
