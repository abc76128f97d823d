"""What the command line and the agent share. No kernel, no Kubernetes."""

__version__ = "0.1.0"
