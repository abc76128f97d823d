"""`detect`: rules in Falco's language."""
