"""The way to a cluster: whose API server, as whom, and through it to the agents."""
