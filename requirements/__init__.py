"""What is taken from the package registry."""
