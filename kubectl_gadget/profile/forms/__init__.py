"""The forms of `profile -o`. Each module here is found by being here: its FORM says what it is called and writes it."""
