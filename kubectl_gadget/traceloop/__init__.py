"""`kubectl gadget traceloop`: the last system calls of containers, running and gone."""
