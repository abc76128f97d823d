"""Measurements: `make bench` prints a table, and JSON lines with --json."""
