"""Bad inputs, drawn from a seed: what can be put before segplus, and what it must answer."""
