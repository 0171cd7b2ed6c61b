"""`python -m hashbench`, for launchers that take a module."""

from hashbench.cli.app import main

main()
