"""Chapter 20: the power cap of least energy under a deadline, and the mixture of two."""

from parallel_lab.grading.capped import table
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.systems.energy.caps import Choice, Setting, energy_j, least_energy

CLOSE = 1e-6
WATTS = "Watts are not joules: the cap of least power takes longest. What is a step's power times its time?"
FAST = "That is the quickest cap. Racing is worth it only where the last steps of speed are cheap."
CAP = "A cap is a limit, and no measurement: the third number of a row says what was drawn."
IDLE = "The machine stays on and idles until the deadline. Which part of its energy does your choice change?"
ONE = "The deadline lies between two caps. With some of the steps at each, when does the last one end?"
MIX = "With these two caps, how many steps may be slow before the deadline is missed? It need not be a whole number."
ALONE = "One cap alone takes less. Is it among those that you compare?"
PAIRS = "Another pair takes less. Did you look at all pairs of a cap that is too slow and one that is quick enough?"
LATE = "Which rows are quick enough at all?"


def right(rows: list, steps: float, deadline_s: float, idle_w: float, caps: int) -> Choice | None:
    """The choice of least energy; None where no cap ends in time."""
    if min(row[1] for row in rows) * steps > deadline_s:
        return None
    return least_energy([Setting(*row) for row in rows], steps, deadline_s=deadline_s, idle_w=idle_w, caps=caps)


def advice(given: tuple, plan: list, best: Choice) -> str:
    """What is said to the usual mistake that chooses the same."""
    rows, steps, deadline_s, idle_w, caps = given
    if len(plan) == 2:
        caps_of_best = {row.limit_w for row, _ in best.steps}
        return ALONE if len(caps_of_best) == 1 else MIX if caps_of_best == {cap for cap, _ in plan} else PAIRS
    in_time = [row for row in rows if row[1] * steps <= deadline_s]
    usual = {
        WATTS: min(in_time, key=lambda row: row[2]),
        CAP: min(in_time, key=lambda row: row[0] * row[1]),
        FAST: min(in_time, key=lambda row: row[1]),
        IDLE: min(in_time, key=lambda row: row[1] * row[2]),
    }
    single = right(rows, steps, deadline_s, idle_w, 1)
    if caps == 2 and single and plan[0][0] == single.steps[0][0].limit_w:
        return ONE
    made = [said for said, row in usual.items() if plan[0][0] == row[0] and (said != IDLE or idle_w)]
    return made[0] if made else "Compute the energy of every row by hand, and sort."


def _plan(got: object, rows: list, at: str) -> list[tuple[Setting, float]]:
    """The answer as rows and steps."""
    table_of = {row[0]: Setting(*row) for row in rows}
    try:
        return [(table_of[cap], float(steps)) for cap, steps in got]  # type: ignore[union-attr]
    except (KeyError, TypeError, ValueError):
        seen = got if isinstance(got, list) else name(got)
        raise Wrong(f"{at}: got {seen}, expected a list of pairs (a cap of the table, steps)") from None


@grader
def spends_least(outcome: Outcome) -> None:
    """All steps are done, in time, with as many caps as are allowed, and for the least energy."""
    given, got, best = outcome.inputs[0], outcome.results[0], outcome.expected[0]
    rows, steps, deadline_s, idle_w, caps = given
    at = f"{steps} steps by {deadline_s:g} s" + (f", idling at {idle_w:g} W until then" if idle_w else "")
    plan = _plan(got, rows, at)
    if best is None:
        if plan:
            raise Wrong(f"{at}: {got} is returned, and no cap ends in time: expected an empty list", LATE)
        return
    done, (seconds, joules) = sum(share for _, share in plan), energy_j(plan, deadline_s, idle_w)
    if not all(share >= 0 for _, share in plan):
        raise Wrong(f"{at}: {got} has a number of steps that is not 0 or more")
    if len(plan) > caps or abs(done - steps) > CLOSE * steps:
        raise Wrong(f"{at}: {got} has {len(plan)} caps and {done:g} steps, expected at most {caps} and {steps} in all")
    if seconds > deadline_s * (1 + CLOSE):
        raise Wrong(f"{at}: {got} takes {seconds:g} s", LATE if len(plan) == 1 else MIX)
    if joules > best.joules * (1 + CLOSE):
        seen = f"{at}: {got} takes {joules / 1e3:.7g} kJ, expected {best.joules / 1e3:.7g} kJ"
        raise Wrong(seen, advice(given, [(row.limit_w, share) for row, share in plan], best))


def _on(kind: str) -> list:
    return on(1, spends_least(), kind=kind)


EXERCISE = Exercise(
    name="power_cap",
    given=table,
    expected=lambda outcome: [right(*given) for given in outcome.inputs],
    device="cpu",
    tests={
        "A deadline that every cap keeps": _on("loose"),
        "A deadline that some caps miss": _on("tight"),
        "A deadline that no cap keeps": _on("no cap"),
        "A machine that stays on until the deadline": _on("stays on"),
        "Two caps, and a deadline between them": _on("two caps"),
        "Two caps, where one is enough": _on("one is enough"),
    },
)
