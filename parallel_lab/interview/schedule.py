"""A plan for a date: which chapters, cards and exercises fit into the days that are left, placed backwards from it.

The last days are for reviews, mock interviews and the first pages. Before them stand the chapters in their order, each
as late as it may be; the day by which each must be begun comes out. What is learned is asked again after 2, 13 and 59
days, if it is known each time, and takes its minutes from those days. What does not fit is left out, least important
first, and named.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import ceil

from parallel_lab.course import progress
from parallel_lab.interview.memory import good_path
from parallel_lab.interview.portions import FAILED, Portion, portions
from parallel_lab.interview.queue import PREPARATION, Item, items

REHEARSE, REHEARSE_DAYS = 0.2, 7  # this share of the days is for rehearsal, and a week at most
MOCK_MINUTES = 15
TURNS = 6  # of placing and counting reviews; each needs what the other found
LONGEST_DAYS = 730


@dataclass
class Day:
    """What a day holds.

    Attributes:
        at: Its date.
        new: The seconds of new work by portion.
        review_s: Of what was learned before.
        mock: Whether there is a mock interview.
        pages: Whether the first pages are read again.
    """

    at: date
    new: dict[Portion, float] = field(default_factory=dict)
    review_s: float = 0.0
    mock: bool = False
    pages: bool = False

    @property
    def new_s(self) -> float:
        """The seconds of new work."""
        return sum(self.new.values())

    @property
    def mock_s(self) -> float:
        """The seconds of a mock interview."""
        return 60.0 * MOCK_MINUTES if self.mock else 0.0


@dataclass
class Plan:
    """The days until the interview, and what is left out.

    Attributes:
        day: Of the interview.
        minutes: A day.
        days: From today to the day before.
        chosen: What fits, in the order of the course.
        left_out: What does not, most important first.
        need_s: What all of it would take, reviews included.
    """

    day: date
    minutes: int
    days: list[Day]
    chosen: list[Portion]
    left_out: list[Portion]
    need_s: float

    @property
    def have_s(self) -> float:
        """What there is time for."""
        return len(self.days) * 60 * self.minutes

    @property
    def used_s(self) -> float:
        """What is planned."""
        return sum(day.new_s + day.review_s + day.mock_s for day in self.days)

    @property
    def latest(self) -> dict[str, date]:
        """The day by which each chapter must be begun."""
        return {one.chapter: day.at for day in reversed(self.days) for one in day.new}

    def taken(self) -> dict[str, int]:
        """How many tiers of each chapter are learned, the chapters in the order of the course."""
        tiers = Counter(one.chapter for one in self.chosen if one.asked)
        return {number: tiers[number] for number in sorted({one.chapter for one in self.chosen})}

    def new_a_day(self) -> int:
        """How many atoms and drills a learning day begins."""
        learning = sum(not _rehearses(len(self.days), place) for place in range(len(self.days)))
        return ceil(sum(len(one.names) for one in self.chosen if one.asked) / max(1, learning))


def planned(day: date, minutes: int) -> Plan:
    """The plan from today to the interview, from what the learner's progress leaves to do.

    Args:
        day: of the interview.
        minutes: that there are a day.

    Raises:
        ValueError: the date is not ahead, or too far, or the minutes are none.
    """
    today = progress.now().astimezone().date()
    left = (day - today).days
    if left < 1:
        raise ValueError(f"{day} is not ahead: today is {today}; give a date from tomorrow on")
    if left > LONGEST_DAYS:
        raise ValueError(f"{day} is {left} days ahead; a plan reaches {LONGEST_DAYS} days")
    if not 5 <= minutes <= 600:
        raise ValueError(f"{minutes} minutes a day make no plan: give 5 to 600")
    entries = progress.read()
    everything = items(entries["reviews"])
    return plan_of(portions(everything, entries), [one for one in everything if one.memory], today, day, minutes)


def plan_of(todo: Sequence[Portion], known: Sequence[Item], today: date, day: date, minutes: int) -> Plan:
    """Chooses what fits and places it; what does not fit when it is placed is left out as well.

    Args:
        todo: what is not done, what pays most first.
        known: what was begun before, and is reviewed.
        today: the first day.
        day: of the interview.
        minutes: a day.
    """
    left = (day - today).days
    old_s = [sum(item.seconds * FAILED for item in known if _asked_on(item, today, n)) for n in range(left)]
    need_s = sum(one.cost_s(left) for one in todo) + sum(old_s)
    chosen = _fitting(todo, left, left * 60 * minutes - sum(old_s))
    while True:
        days = _days(today, left, minutes)
        over = _placed(chosen, days, old_s, 60.0 * minutes)
        if not over or not chosen:
            break
        chosen = chosen[:-1]
    skipped = [one for one in todo if one not in chosen]
    return Plan(day, minutes, days, sorted(chosen, key=lambda one: (one.chapter, one.level)), skipped, need_s)


def _fitting(todo: Sequence[Portion], left: int, seconds: float) -> list[Portion]:
    """The portions that fit into the time, by their order; a tier comes only behind the tier before it."""
    chosen, stopped = [], set()
    for one in todo:
        cost = one.cost_s(left)
        if cost > seconds or (one.asked and one.chapter in stopped):
            stopped |= {one.chapter} if one.asked else set()
            continue
        chosen.append(one)
        seconds -= cost
    return chosen


def _days(today: date, left: int, minutes: int) -> list[Day]:
    """Empty days; in the last ones a mock interview every second day, and the first pages the evening before."""
    days = [Day(today + timedelta(days=n)) for n in range(left)]
    for place, day in enumerate(days):
        day.mock = _rehearses(left, place) and (left - place) % 2 == 0 and minutes >= MOCK_MINUTES
    days[-1].pages = True
    return days


def _rehearses(left: int, place: int) -> bool:
    return place >= left - min(REHEARSE_DAYS, int(REHEARSE * left))


def _placed(chosen: Sequence[Portion], days: list[Day], old_s: Sequence[float], a_day_s: float) -> bool:
    """Fills the days backwards; returns whether something found no room."""
    over = False
    for _ in range(TURNS):
        reviews = _reviews(days, old_s)
        over = _fill(chosen, days, reviews, a_day_s)
    return _carried(days, _reviews(days, old_s), a_day_s) or over


def _carried(days: Sequence[Day], reviews: Sequence[float], a_day_s: float) -> bool:
    """Gives each day its reviews; what has no room moves to the next. Returns whether more than a day's is left."""
    carried = 0.0
    for day, review_s in zip(days, reviews, strict=True):
        asked = review_s + carried
        day.review_s = min(asked, max(0.0, a_day_s - day.new_s - day.mock_s))
        carried = asked - day.review_s
    return carried > a_day_s / 2


def _fill(chosen: Sequence[Portion], days: list[Day], reviews: Sequence[float], a_day_s: float) -> bool:
    for day in days:
        day.new = {}
    place, room = len(days), 0.0
    for one in sorted(chosen, key=lambda one: (one.chapter, one.level), reverse=True):
        rest = one.seconds * (1 + FAILED * one.asked)  # what is new is asked twice on its first day
        while rest > 1e-6:
            if room <= 1e-6:
                place -= 1
                if place < 0:
                    return True
                room = 0.0 if _rehearses(len(days), place) else max(0.0, a_day_s - reviews[place])
                continue
            part = min(rest, room)
            days[place].new[one] = days[place].new.get(one, 0.0) + part
            rest, room = rest - part, room - part
    return False


def _reviews(days: Sequence[Day], old_s: Sequence[float]) -> list[float]:
    """The seconds of reviews of each day, of what was known before and of what the days bring."""
    found = list(old_s)
    for place, day in enumerate(days):
        begun_s = sum(s / (1 + FAILED) for one, s in day.new.items() if one.asked)
        for later in good_path(len(days) - 1 - place):
            if later:
                found[place + later] += begun_s * FAILED
    return found


def _asked_on(item: Item, today: date, place: int) -> bool:
    """Whether what is known already is due on a day, if it is known each time: its intervals grow by about four."""
    if item.memory is None:
        return False
    first = max(0, (item.memory.due.astimezone().date() - today).days)
    step = max(2, round(item.memory.stability_days))
    while first < place:
        step *= 4
        first += step
    return first == place


def kept() -> Plan | None:
    """The plan of the date that was given last, from today on; None where there is none, or it has passed.

    What is left to do is placed anew, so that a day that was missed moves the rest.
    """
    noted = progress.read()["preparations"].get(PREPARATION, {})
    if "date" not in noted or date.fromisoformat(noted["date"]) <= progress.now().astimezone().date():
        return None
    return planned(date.fromisoformat(noted["date"]), noted["minutes"])


def keep(plan: Plan) -> str:
    """Keeps a plan, so that reviews follow it; returns a warning, or nothing."""
    by = {number: day.isoformat() for number, day in sorted(plan.latest.items())}
    about = {"date": plan.day.isoformat(), "minutes": plan.minutes, "begin_by": by}
    learned = {"take": plan.taken(), "new_a_day": plan.new_a_day()}
    exercises = [name for one in plan.chosen if one.kind in ("gaps", "exercises") for name in one.names]
    return progress.record_preparation(PREPARATION, {**about, **learned, "exercises": exercises})


def forget() -> str:
    """Forgets the date; reviews are for good again."""
    return progress.record_preparation(PREPARATION, {})
