"""`kubectl gadget why`: what ended a container, or what it waits for, as a sentence with its evidence."""
