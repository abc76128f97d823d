"""The way to agents: channels, calls, errors as one line, all agents at once, the agent of this machine."""
