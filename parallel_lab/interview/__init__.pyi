# One line a module, in the order of the alphabet; `__all__` as well.
from .atoms import Atom, atom, atoms, atoms_of
from .words import language_of, say

__all__ = [
    "Atom",
    "atom",
    "atoms",
    "atoms_of",
    "language_of",
    "say",
]
