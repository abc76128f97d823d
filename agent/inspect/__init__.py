"""What the node says of a container now, when somebody asks why it failed or hangs."""
