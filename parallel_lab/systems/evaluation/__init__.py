"""How good a model is, and how well its training uses the machines, over ranks."""
