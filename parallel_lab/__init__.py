"""Parallel Lab: parallel training of large language models, on real processes, seen and graded.

The face is lazy (SPEC 1): importing `parallel_lab` loads nothing until a name is used, so that a rank never loads
matplotlib or widgets. The names stand in `__init__.pyi`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
