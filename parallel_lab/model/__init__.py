"""What is trained: a GPT, an MLP, real data, and the oracle that trains them in one process.

Lazy: scikit-learn is loaded when the digits are first used. The names stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
