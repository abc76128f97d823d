"""What goes wrong around the tool: each test says what happened, what was lost, and how the user was told."""
