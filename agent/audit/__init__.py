"""The receiver of an API server's audit events: judges them by rules, and keeps the alerts. It traces nothing."""
