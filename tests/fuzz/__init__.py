"""Parsers of what others wrote, given what nobody should have written."""
