"""`prepare("2027-03-14", minutes=40)`: the plan for the date of an interview, as a table and a picture, in words."""

from collections import Counter
from collections.abc import Sequence
from datetime import date

from parallel_lab.course import page
from parallel_lab.interview.board import picture
from parallel_lab.interview.portions import LEVELS, Portion
from parallel_lab.interview.schedule import Day, Plan, keep, kept, planned
from parallel_lab.interview.words import lang, language_of, say
from parallel_lab.view import Drawing, bars

_MOST_BARS = 16


class Prepared(page.Shown):
    """A plan that is kept in the progress, ready to be shown."""

    def __init__(self, plan: Plan, language: str = "en", warning: str = "") -> None:
        self.plan, self.language, self.warning = plan, language, warning

    def draw(self) -> Drawing:
        """The minutes a day, in spans of equal length: new work, reviews, mock interviews. Its words are English."""
        days = self.plan.days
        per = -(-len(days) // _MOST_BARS)
        spans = [days[start : start + per] for start in range(0, len(days), per)]
        parts = {
            "new": [_minutes(span, [day.new_s for day in span]) for span in spans],
            "reviews": [_minutes(span, [day.review_s for day in span]) for span in spans],
            "mock interviews": [_minutes(span, [day.mock_s for day in span]) for span in spans],
        }
        labels = [f"{span[0].at:%d %b}" for span in spans]
        title = f"Planned minutes a day until {self.plan.day}"
        return bars(parts, labels, "minutes a day", title=title)

    def as_page(self) -> page.Page:
        """What fits, by which day each chapter must be begun, what is left out."""
        title = self._say("title", day=self.plan.day)
        parts = [page.paragraph(title, "head", self._lang), *map(self._paragraph, self._beginning())]
        if rows := self._rows():
            head = [self._say(f"head-{name}") for name in ("by", "chapter", "what", "hours")]
            parts.append(page.table(head, rows))
        parts += map(self._paragraph, [*self._last_days(), *self._left_out(), self._say("then")])
        if self.warning:
            parts.append(self._paragraph(say("common.not-saved", self.language, why=self.warning)))
        return page.Page(title, parts)

    def _repr_html_(self) -> str:
        return f"{self.as_page()._repr_html_()}\n{picture(self.draw()).html}"

    def _beginning(self) -> list[str]:
        plan = self.plan
        hours = {"have": plan.have_s / 3600, "need": plan.need_s / 3600, "used": plan.used_s / 3600}
        enough = self._say("enough" if not plan.left_out else "short", **hours)
        return [self._say("time", days=len(plan.days), minutes=plan.minutes, **hours), enough]

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """A line a chapter, in the order of the course."""
        rows = []
        for number, by in sorted(self.plan.latest.items()):
            own = [one for one in self.plan.chosen if one.chapter == number]
            hours = sum(day.new[one] for day in self.plan.days for one in own if one in day.new) / 3600
            title = f"{number} {say(f'chapter.{number}', self.language)}"
            rows.append((by.isoformat(), title, self._what(own), f"{hours:.1f}"))
        return rows

    def _what(self, own: Sequence[Portion]) -> str:
        """The kinds of portions in words, with how many there are of each."""
        counts = Counter()
        for one in own:
            counts[one.kind] += len(one.names)
        words = (f"{self._say(f'kind-{kind}')}{f' ({count})' if count else ''}" for kind, count in counts.items())
        return self._say("comma").join(words)

    def _last_days(self) -> list[str]:
        mocks = sum(day.mock for day in self.plan.days)
        days = [day.at for day in self.plan.days if day.mock]
        return [self._say("mocks", count=mocks, first=days[0], last=self.plan.day)] if mocks else []

    def _left_out(self) -> list[str]:
        """What does not fit, by kind with its chapters."""
        said = []
        for kind in LEVELS:
            if chapters := sorted({one.chapter for one in self.plan.left_out if one.kind == kind}):
                said.append(self._say("of", kind=self._say(f"kind-{kind}"), chapters=_ranges(chapters)))
        return [self._say("left-out", what=self._say("semicolon").join(said))] if said else []

    @property
    def _lang(self) -> str:
        return lang(self.language)

    def _paragraph(self, text: str) -> page.Part:
        return page.paragraph(text, lang=self._lang)

    def _say(self, key: str, **values: object) -> str:
        return say(f"schedule.{key}", self.language, **values)


def _minutes(span: Sequence[Day], seconds: Sequence[float]) -> float:
    return sum(seconds) / len(span) / 60


def _ranges(chapters: Sequence[str]) -> str:
    """`01, 03-06` for 01, 03, 04, 05, 06."""
    runs: list[list[str]] = []
    for number in chapters:
        if runs and int(number) == int(runs[-1][-1]) + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def prepare(day: str | date | None = None, minutes: int = 40, language: str | None = None) -> Prepared:
    """Plans the days until an interview and keeps the plan; reviews follow it from then on.

    Args:
        day: the date of the interview, as `"2027-03-14"`; without, the plan that is kept, from today on.
        minutes: that there are a day.
        language: `en` or `zh`; without, that of PARALLEL_LAB_LANGUAGE, else English.

    Raises:
        ValueError: the date is none, or not ahead; or none is kept.
    """
    own = language_of(language)
    if day is None:
        plan = kept()
        if plan is None:
            raise ValueError(say("schedule.none", own))
        return Prepared(plan, own)
    plan = planned(_date(day), minutes)
    return Prepared(plan, own, keep(plan))


def _date(day: str | date) -> date:
    if isinstance(day, date):
        return day
    try:
        return date.fromisoformat(day.strip())
    except ValueError:
        raise ValueError(f"{day!r} is no date: write year, month and day, as 2027-03-14") from None
