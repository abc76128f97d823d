"""`kubectl gadget advise network-policy`: policies from recorded flows."""
