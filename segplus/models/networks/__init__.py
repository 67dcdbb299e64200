"""Whole networks, a file each: a config, a model, and the structure of its paper."""
