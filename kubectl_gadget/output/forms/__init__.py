"""The forms of -o. Each module here is found by being here: its FORMS says what they are called and what they show."""
