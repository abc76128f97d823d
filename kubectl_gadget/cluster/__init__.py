"""The agents of a cluster: where they are, and the commands that make and remove them."""
