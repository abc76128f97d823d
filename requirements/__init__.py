"""What the image has from the package registry."""
