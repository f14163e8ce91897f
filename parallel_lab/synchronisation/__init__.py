"""The ways to synchronise: when gradients or weights meet, and how stale they may be by then."""
