"""A real Kubernetes of two nodes on this machine, for as long as one command runs: python -m tests.e2e.cluster COMMAND.

Everything lives in namespaces of its own (mount, network, PID): when their first process ends, however it ends, the
kernel ends all of it and takes the mounts and interfaces along. Only empty cgroups and files are left to remove.
"""
