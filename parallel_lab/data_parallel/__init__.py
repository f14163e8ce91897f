"""Data parallelism: every rank has the model (or a shard of it) and its own part of each batch."""
