"""Practice that lasts: atoms of cards, when they are due, mock interviews, the whiteboard, decks, the way to a date.

The face is lazy: the names stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
