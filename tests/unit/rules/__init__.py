"""Rules in Falco's language."""
