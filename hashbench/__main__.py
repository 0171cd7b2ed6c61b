"""`python -m hashbench`, for launchers that take a module."""

from hashbench.cli import main

main()
