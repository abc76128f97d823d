"""The flow recorder: who talks to whom."""
