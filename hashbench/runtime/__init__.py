"""The process and its machine: console, files, locks, devices and signals."""
