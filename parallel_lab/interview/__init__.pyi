# One line a module, in the order of the alphabet; `__all__` as well.
from .anki import write_deck, write_table
from .anki_reviews import import_reviews
from .atoms import Atom, atom, atoms, atoms_of
from .badge_page import badge, write_badge
from .boards import whiteboard
from .brier import calibration
from .course_path import path, path_page
from .debugging_form import debugging_round
from .desk import mock_interview
from .ladder_form import ladder
from .mock import Mock
from .night import first_page, night_page, write_night
from .noted import Opinion
from .prepared import prepare
from .proofs import evidence
from .queue import todays
from .review_form import review
from .sample import sample_interview
from .vocabulary import terms
from .words import language_of, say

__all__ = [
    "Atom",
    "Mock",
    "Opinion",
    "atom",
    "atoms",
    "atoms_of",
    "badge",
    "calibration",
    "debugging_round",
    "evidence",
    "first_page",
    "import_reviews",
    "ladder",
    "language_of",
    "mock_interview",
    "night_page",
    "path",
    "path_page",
    "prepare",
    "review",
    "sample_interview",
    "say",
    "terms",
    "todays",
    "whiteboard",
    "write_badge",
    "write_deck",
    "write_night",
    "write_table",
]
