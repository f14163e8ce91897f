# One line a module, in the order of the alphabet; `__all__` as well.
from .words import language_of, say

__all__ = ["language_of", "say"]
