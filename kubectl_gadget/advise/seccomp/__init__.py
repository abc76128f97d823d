"""`advise seccomp-profile`: profiles from the system calls that workloads were seen to make."""
