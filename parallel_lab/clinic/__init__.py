"""Broken training jobs, each with one hidden cause, and the judge of who finds and mends it.

Lazy, so that a rank loads only what its job needs. The names stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
