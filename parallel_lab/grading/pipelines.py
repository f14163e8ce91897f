"""Graders for answers that are a schedule: rows of passes, judged as a plan, by the simulator, without running a model.

An answer is a function of p and m that returns a row for each stage, such as `["F0", "F1", "B0", "B1"]`. A driver calls
it for several (p, m) in one rank (`drivers.call_each`), and the kernel looks at what it returned. `runs_each_once` is
the first grader of each test: the others read rows that make a plan.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.pipeline import with_needs
from parallel_lab.plan import Op, Plan, PlanError, check_plan, to_grid
from parallel_lab.simulate import PassCost, simulate

PASSES = PassCost(activation_bytes=1)  # F, I and W take one second and B two; I gives nothing back
Schedule = Callable[[int, int], Plan]


@grader
def runs_each_once(outcome: Outcome, *kinds: str) -> None:
    """Each stage runs each pass of `kinds` once for each microbatch, and the order comes to an end."""
    for at, (p, m), rows in _answers(outcome):
        wanted = Counter(f"{kind}{mb}" for kind in kinds for mb in range(m))
        if type(rows) is not list or len(rows) != p:
            raise Wrong(f"{at}: expected a list of {p} rows, one for each stage, and got {name(rows)}")
        for stage, row in enumerate(rows):
            if type(row) is not list or not all(type(one) is str for one in row):
                form = ", ".join(f'"{kind}0"' for kind in kinds)
                raise Wrong(f"{at}: row {stage} is {name(row)}, expected a list of words such as {form}")
            _each_once(f"{at}: stage {stage}", Counter(row), wanted, kinds, m)
        try:
            check_plan(_plan(rows))
        except PlanError as error:
            raise Wrong(f"{at}: {error}", "A pass waits for its input: follow the circle in the grid.") from None


def _each_once(where: str, got: Counter, wanted: Counter, kinds: tuple[str, ...], m: int) -> None:
    if strange := next((one for one in got if one not in wanted), ""):
        there = f"the passes are {', '.join(f'{kind}0 to {kind}{m - 1}' for kind in kinds)}"
        raise Wrong(f"{where} runs {strange}; {there}")
    if doubled := next((one for one in got if got[one] > 1), ""):
        raise Wrong(f"{where} runs {doubled} {got[doubled]} times", "Each pass of a microbatch is run once.")
    if missing := next((one for one in wanted if one not in got), ""):
        raise Wrong(f"{where} never runs {missing}", "What is left for a stage to do when its last forward is over?")


@grader
def takes(outcome: Outcome, like: Schedule, what: str, mistakes: Mapping[str, Schedule], advice: str) -> None:
    """The step takes no longer than that of `like`; `what` is who takes so long.

    `mistakes` have usual slow orders under the advice for who has them.
    """
    for at, (p, m), rows in _answers(outcome):
        took_s, right_s = (simulate(plan, PASSES).duration_s for plan in (_plan(rows), like(p, m)))
        if took_s > right_s:
            known = [said for said, slow in mistakes.items() if slow(p, m).rows == _plan(rows).rows]
            seen = f"{at}: the step takes {took_s:g}, {what} {right_s:g}, where a forward takes 1 and a backward 2"
            raise Wrong(f"{seen}\n{to_grid(_plan(rows))}", known[0] if known else advice)


@grader
def holds(outcome: Outcome, like: Schedule, what: str, all_of_them: str, advice: str) -> None:
    """No stage holds more activations at once than in `like`; `all_of_them` is the advice for who holds all m."""
    for at, (p, m), rows in _answers(outcome):
        mine, right = (simulate(plan, PASSES) for plan in (_plan(rows), like(p, m)))
        for stage in range(p):
            held, most = mine.peak_bytes(stage), right.peak_bytes(stage)
            if held > most:
                seen = f"{at}: stage {stage} holds the activations of {held} microbatches at once, {what} {most}"
                raise Wrong(f"{seen}\n{to_grid(_plan(rows))}", all_of_them if held == m > p else advice)


@grader
def follows(outcome: Outcome, like: Schedule, what: str) -> None:
    """The rows are those of `like`, pass by pass."""
    for at, (p, m), rows in _answers(outcome):
        mine, right = _plan(rows), like(p, m)
        for stage, (got, expected) in enumerate(zip(mine.rows, right.rows, strict=True)):
            for place, (one, other) in enumerate(zip(got, expected, strict=True)):
                if one != other:
                    seen = f"{at}: pass {place + 1} of stage {stage} is {one.kind}{one.mb}, {what} runs"
                    raise Wrong(f"{seen} {other.kind}{other.mb} there\n{to_grid(mine, [one])}")


def _answers(outcome: Outcome) -> Iterator[tuple[str, tuple[int, int], list]]:
    """For each call: where it was, its p and m, and what was returned."""
    for (p, m), rows in zip(outcome.inputs[0][0], outcome.results[0][0], strict=True):
        yield f"p = {p}, m = {m}", (p, m), rows


def _plan(rows: list[list[str]]) -> Plan:
    return with_needs([[Op(s, one[0], s, int(one[1:])) for one in row] for s, row in enumerate(rows)])
