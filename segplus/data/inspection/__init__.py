"""The data doctor: every pair read once, what was found, and the recipe that fits."""
