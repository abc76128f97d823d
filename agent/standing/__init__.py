"""Standing runs: they go on without a client, and keep what they saw."""
