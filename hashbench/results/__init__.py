"""Records of runs: written, read, found, verified and exchanged."""
