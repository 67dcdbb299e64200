"""Street scenes drawn from a seed: the embedded data set."""
