"""The recorder of system calls: which ones each workload makes."""
