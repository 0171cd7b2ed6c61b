"""Entry point of `python -m hashbench`, for launchers that take a module name."""

from hashbench.cli.app import main

main()
