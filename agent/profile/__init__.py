"""What CPUs do: samples of stacks, and the names of the functions in them."""
