"""What the clinic says, in the language of the round: how a cause shows, its cure, a colleague's complaint.

The English texts stand with the causes and the cases, the Chinese ones in `clinic_zh.yaml`. Programs, charts and the
reports of runs are English in both.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.clinic import Cause
from parallel_lab.clinic.job import Case


@cache
def chinese() -> dict[str, Any]:
    """The Chinese texts: `causes` by name, `cases` by number."""
    return yaml.safe_load(files("parallel_lab.interview").joinpath("clinic_zh.yaml").read_text(encoding="utf-8"))


def of_cause(cause: Cause, what: str, language: str) -> str:
    """`signature` or `cure` of a cause."""
    return getattr(cause, what) if language == "en" else chinese()["causes"][cause.name][what]


def of_case(case: Case, what: str, language: str) -> str:
    """`title`, `complaint` or `evidence` of a case."""
    return getattr(case, what) if language == "en" else chinese()["cases"][case.number][what]
