"""Numbers of an agent for Prometheus: what it saw and lost, and what it costs. No names of processes, no addresses."""
