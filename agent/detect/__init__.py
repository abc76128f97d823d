"""Rules in Falco's language that judge what happens on this node."""
