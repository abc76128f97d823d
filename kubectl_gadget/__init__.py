"""The command line: kubectl-gadget."""
