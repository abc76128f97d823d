"""Measurements: `make bench` prints a table, and JSON lines with --json."""

#: A unit, and the values of several runs in it.
Result = tuple[str, list[float]]
