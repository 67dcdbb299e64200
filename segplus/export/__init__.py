"""A checkpoint as a folder that needs neither segplus nor transformers: graphs, their preprocessing, their parity."""
