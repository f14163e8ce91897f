"""A debugging round: a broken job with a hidden fault, four causes to choose from, and a clock; free of any form.

The job is a case of the clinic and runs on real ranks. The cause at once brings 50 points, at a second try 30, at a
third 10; a mended job 50, less 10 for each version that was not, and 10 at least. What comes late counts half.
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from types import ModuleType

from parallel_lab.clinic import CASES, Cause, Opened, diagnose, open_case
from parallel_lab.clinic.job import Case
from parallel_lab.course import page, progress
from parallel_lab.course.events import AGAIN, GOOD, HARD
from parallel_lab.interview.clinic_words import of_case, of_cause
from parallel_lab.interview.judged import cause_words, near_causes
from parallel_lab.interview.kept import MINUTES, before, in_turn
from parallel_lab.interview.names import bound
from parallel_lab.interview.words import lang, language_of, say

FOR_CAUSE, FOR_MEND = (50, 30, 10), 50
LESS, LEAST = 10, 10  # for a version that is not mended; for the one that is, at least


@dataclass
class Round:
    """A round under way.

    Attributes:
        opened: The case with the chart of its run.
        options: The causes to choose from.
        minutes: How long it is meant to take.
        language: `en` or `zh`.
        began: When it began.
        named: The causes that were named so far.
        versions: How many jobs were judged.
        points: What was reached.
        late: Whether some of it came after the time.
        mended: Whether a job was.
        ended: Whether its result is kept.
    """

    opened: Opened
    options: list[Cause]
    minutes: float = MINUTES
    language: str = "en"
    began: datetime = field(default_factory=lambda: progress.now())
    named: list[str] = field(default_factory=list)
    versions: int = 0
    points: int = 0
    late: bool = False
    mended: bool = False
    ended: bool = False

    @property
    def case(self) -> Case:
        """The case of the clinic."""
        return self.opened.case

    @property
    def left_s(self) -> float:
        """Seconds that are left; negative where the time is over."""
        return 60 * self.minutes - (progress.now() - self.began).total_seconds()

    @property
    def found(self) -> bool:
        """Whether the cause was named."""
        return self.case.cause in self.named

    @property
    def words(self) -> list[str]:
        """The causes to choose from, in the language of the round."""
        return [cause_words(one.name, self.language) for one in self.options]

    def name(self, place: int) -> page.Page:
        """Judges the cause at `place` of the options; a wrong one is told where it would show."""
        one, right = self.options[place], self.options[place].name == self.case.cause
        if one.name not in self.named and not self.found:
            self.named.append(one.name)
            if right:
                self._reached(dict(enumerate(FOR_CAUSE, 1)).get(len(self.named), 0))
        if right:
            return self._said(True, "cause", cause=self.words[place])
        shown = of_cause(one, "signature", self.language)
        return self._said(False, "not", cause=self.words[place], signature=shown)

    def mend(self, job: Callable, seed: int | None = None) -> page.Page:
        """Judges a version of the job by running it on real ranks; what is still wrong is said."""
        found = diagnose(self.case.number, self.case.cause, job, seed=seed)
        self.versions += 1
        if not found.healthy:
            seen = " ".join(found.said[1:]).removeprefix("The job is not mended: ")
            return page.verdict(False, f"{say('debugging.not-mended', self.language)} {seen}", lang=lang(self.language))
        if not self.mended:
            self.mended = True
            self._reached(max(LEAST, FOR_MEND - LESS * (self.versions - 1)))
        return self._said(True, "mended")

    @property
    def clock(self) -> str:
        """How much time is left, in words."""
        left_s = self.left_s
        if left_s <= 0:
            return say("debugging.over", self.language)
        minutes, seconds = divmod(round(left_s), 60)
        return say("debugging.left", self.language, left=f"{minutes}:{seconds:02}")

    def finish(self) -> page.Page:
        """Keeps time and score once, and says them with cause, evidence and cure."""
        took_s = (progress.now() - self.began).total_seconds()
        warning = "" if self.ended else self._keep(took_s)
        self.ended, own = True, self.language
        cause = next(one for one in self.options if one.name == self.case.cause)
        minutes, seconds = divmod(round(took_s), 60)
        took = f"{minutes}:{seconds:02}"
        score = say("debugging.score", own, points=self.points, took=took, minutes=f"{self.minutes:g}")
        lines = [
            say("debugging.was", own, cause=cause_words(cause.name, own), number=self.case.number),
            say("rounds.log-evidence", own, evidence=of_case(self.case, "evidence", own)),
            say("rounds.log-cure", own, cure=of_cause(cause, "cure", own)),
            *filter(None, [before("debugging", self.began.isoformat(timespec="seconds"), own), warning]),
        ]
        head = page.paragraph(score, "head", lang(own))
        return page.Page(score, [head, *(page.paragraph(line, lang=lang(own)) for line in lines)], "note")

    def _keep(self, took_s: float) -> str:
        first, soon = len(self.named) == 1 and not self.late, len(self.named) <= 2
        rating = AGAIN if not (self.found and soon) else GOOD if first else HARD
        report = {
            "kind": "debugging",
            "case": self.case.number,
            "named": list(self.named),
            "found": self.found,
            "mended": self.mended,
            "versions": self.versions,
            "took_s": round(took_s),
            "minutes": self.minutes,
            "points": self.points,
            "most": FOR_CAUSE[0] + FOR_MEND,
        }
        kept = progress.record_round(self.began.isoformat(timespec="seconds"), report)
        return progress.record_review(f"clinic/{self.case.number}", rating, "clinic") or kept

    def _reached(self, points: int) -> None:
        if self.ended:
            return
        late = self.left_s < 0
        self.late |= late
        self.points += points // 2 if late else points

    def _said(self, right: bool, key: str, **values: str) -> page.Page:
        return page.verdict(right, say(f"debugging.{key}", self.language, **values), lang=lang(self.language))


def begin(
    minutes: float = MINUTES, *, number: int | None = None, seed: int | None = None, language: str | None = None
) -> Round:
    """Runs a case that was not met yet, or is due, on real ranks; the clock starts when its chart is there.

    Args:
        minutes: how long the round is meant to take.
        number: of a case, to practice this one.
        seed: the same case for the same seed and the same progress; a fresh one without.
        language: `en` or `zh`; that of the environment by default.

    Raises:
        ValueError: the minutes are none, there is no such case, or no such language.
    """
    own, dice = language_of(language), Random(seed)
    check_minutes(minutes, own)
    number = in_turn(CASES, "clinic/{}".format, dice)[0] if number is None else number
    opened = open_case(number)
    return Round(opened, near_causes(opened.case, dice), minutes, own)


def check_minutes(minutes: float, language: str) -> None:
    """Refuses minutes that a round cannot take.

    Raises:
        ValueError: they are none, or more than a day.
    """
    if not 0 < minutes <= 24 * 60:
        raise ValueError(say("debugging.minutes", language, minutes=f"{minutes:g}"))


def program(case: Case) -> str:
    """The broken program as a file of its own: its imports, and the names of its module that it uses.

    It imports nothing from the case, whose name would give the cause away. Annotations are left as text.
    """
    module = inspect.getmodule(case.job)
    assert isinstance(module, ModuleType)
    source = inspect.getsource(module)
    wanted, kept = {case.job.__name__}, {}
    statements = ast.parse(source).body
    for one in reversed(statements):  # what is used stands above
        if bound(one) & wanted:
            kept[one.lineno] = _pruned(one, wanted) or ast.get_source_segment(source, one) or ""
            wanted |= _looks_up(one)
    parts = [text for _, text in sorted(kept.items())]
    imports = [text for text in parts if text.startswith(("import ", "from "))]
    others = [text for text in parts if text not in imports]
    return "from __future__ import annotations\n\n" + "\n".join(imports) + "\n\n\n" + "\n\n\n".join(others) + "\n"


def _pruned(one: ast.stmt, wanted: set[str]) -> str:
    """An import without the names that are not wanted; empty for what is no import."""
    if not isinstance(one, (ast.Import, ast.ImportFrom)):
        return ""
    one.names = [name for name in one.names if (name.asname or name.name).split(".")[0] in wanted]
    return ast.unparse(one)


def _looks_up(one: ast.stmt) -> set[str]:
    """The names that a definition uses when it runs; those of annotations are not looked up."""
    if isinstance(one, ast.FunctionDef):
        parts: list[ast.AST] = [*one.body, *one.decorator_list, *one.args.defaults, *filter(None, one.args.kw_defaults)]
    else:
        parts = [one]
    return {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)}
