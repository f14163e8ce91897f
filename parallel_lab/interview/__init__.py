"""Practice that lasts: atoms of the cards, when they are due, mock interviews, the whiteboard, decks, a date.

The face is lazy: the names stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
