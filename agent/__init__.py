"""The agent: loads gadgets into this machine's kernel and streams their events."""
