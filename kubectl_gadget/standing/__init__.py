"""Standing runs, as users make, list, read and delete them."""
