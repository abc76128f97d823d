"""`story`: the events of several gadgets as one stream, a line each."""
