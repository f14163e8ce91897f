"""What the clinic says, in the language of the round: how a cause shows, its cure, a colleague's complaint.

The English texts stand with the causes and the cases, the Chinese ones in `clinic_zh.yaml`. Programs, charts and the
reports of runs are English in both.
"""

from typing import Any

from parallel_lab.clinic import Cause
from parallel_lab.clinic.job import Case
from parallel_lab.course.terms import read


def chinese() -> dict[str, Any]:
    """The Chinese texts: `causes` by name, `cases` by number."""
    return read("clinic_zh", "interview")


def of_cause(cause: Cause, what: str, language: str) -> str:
    """`signature` or `cure` of a cause."""
    return getattr(cause, what) if language == "en" else chinese()["causes"][cause.name][what]


def of_case(case: Case, what: str, language: str) -> str:
    """`title`, `complaint` or `evidence` of a case."""
    return getattr(case, what) if language == "en" else chinese()["cases"][case.number][what]
