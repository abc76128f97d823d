"""`advise capabilities`: what workloads need, from the capabilities that the kernel asked their processes for."""
