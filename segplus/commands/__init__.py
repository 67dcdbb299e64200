"""What people run: one file a verb, read top to bottom; what verbs share is in options, endings and chosen_sections."""
