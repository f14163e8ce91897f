# One line a module, in the order of the alphabet; `__all__` as well.
from .atoms import Atom, atom, atoms, atoms_of
from .boards import whiteboard
from .brier import calibration
from .debugging_form import debugging_round
from .desk import mock_interview
from .ladder_form import ladder
from .mock import Mock, Opinion
from .prepared import prepare
from .proofs import evidence
from .queue import todays
from .review_form import review
from .vocabulary import terms
from .words import language_of, say

__all__ = [
    "Atom",
    "Mock",
    "Opinion",
    "atom",
    "atoms",
    "atoms_of",
    "calibration",
    "debugging_round",
    "evidence",
    "ladder",
    "language_of",
    "mock_interview",
    "prepare",
    "review",
    "say",
    "terms",
    "todays",
    "whiteboard",
]
