"""`profile`: where the time of CPUs goes, from samples of stacks."""
