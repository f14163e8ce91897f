"""What training costs in energy: sensors, tables of real GPUs, caps, waiting, moving bytes, and carbon.

Lazy, so that carbon and tables need no torch. The names stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
