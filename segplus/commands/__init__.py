"""What people run: one file a verb, read top to bottom."""
