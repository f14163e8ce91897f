"""Broken training jobs, each with one hidden cause, and the judge of who finds and mends it."""
