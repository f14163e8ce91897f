"""All axes at once: a GPT cut into stages, by tensors, contexts and experts, and over data.

What is loaded is what is used; the names stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
