"""The command line: one module per command or group of commands, and the options and output they share."""
