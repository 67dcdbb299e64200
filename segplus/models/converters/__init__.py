"""Weights that others published, brought to the names that segplus' networks have."""
