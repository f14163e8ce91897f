"""Compression: what a model can do without."""
