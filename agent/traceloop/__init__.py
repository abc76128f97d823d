"""The flight recorder: keeps the last system calls of every container, also when this agent is not there."""
