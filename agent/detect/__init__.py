"""Rules at work in an agent."""
