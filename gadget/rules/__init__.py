"""Rules in Falco's language: read, checked, compiled and applied to events. See docs/detect.md."""
