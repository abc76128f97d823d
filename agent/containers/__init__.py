"""The containers of this machine: which there are, what they are called, and what else is known of them."""
