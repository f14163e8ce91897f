"""Is this plan possible? `check_plan` raises `PlanError`, says which rank's step is wrong and shows it in the grid.

A plan is possible when every op stands once, in its own rank's row; when everything that an op waits for is in the
plan; when every message is sent once and taken once; and when the waits form no circle. An op waits for its `needs`,
for the op ahead of it in its lane, and, if it receives, for its sender. `Waits` is that graph over numbers instead of
ops: hashing an op costs more than an addition, so it is done once, and the simulator walks the same graph.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

from parallel_lab.plan.op import RECEIVING, Needs, Op, Plan
from parallel_lab.plan.text import to_grid

_SMALL = 16  # a plan with no more rows and columns than this is shown whole
_AROUND = 3  # of a larger one, this many rows and columns on each side of the marked step
_SHOWN = 12  # steps of a circle that are written out


class PlanError(ValueError):
    """A plan that cannot be carried out as written."""


@dataclass(frozen=True)
class Waits:
    """What each op of a plan waits for, with ops numbered rank after rank in row order.

    Attributes:
        plan: the plan.
        ops: the op of each number.
        ahead: for each op, the number of the one ahead of it in its lane (or on its port); -1 for none.
        before: for each op, the numbers of its needs, its sender among them.
        sender: for each op, the number of the send whose message it receives; -1 for none.
    """

    plan: Plan
    ops: list[Op]
    ahead: list[int]
    before: list[tuple[int, ...]]
    sender: list[int]

    @classmethod
    def of(cls, plan: Plan, port: Callable[[Op], str] = attrgetter("lane")) -> "Waits":
        """The graph of `plan`. `port` names what an op shares with those that it waits for in the row order.

        Raises:
            PlanError: an op stands in another rank's row, or twice, or it waits for one that is in no row.
        """
        ops = list(chain.from_iterable(plan.rows))
        number = dict(zip(ops, range(len(ops)), strict=True))
        if len(number) < len(ops):
            op, times = Counter(ops).most_common(1)[0]
            raise PlanError(f"{say(op)} stands {times} times, and a step is done once\n{show(plan, [op])}")
        waits = cls(plan, ops, [], [()] * len(ops), [-1] * len(ops))
        waits._add_lanes(port)
        waits._add_needs(number)
        return waits

    def _add_lanes(self, port: Callable[[Op], str]) -> None:
        for rank, row in enumerate(self.plan.rows):
            last: dict[str, int] = {}
            for i, (op, name) in enumerate(zip(row, map(port, row), strict=True), len(self.ahead)):
                if op.rank != rank:
                    raise PlanError(f"{say(op)} stands in the row of rank {rank}\n{show(self.plan, [op])}")
                self.ahead.append(last.get(name, -1))
                last[name] = i

    def _add_needs(self, number: dict[Op, int]) -> None:
        needs, place = self.plan.needs, number.__getitem__
        if isinstance(needs, Needs) and needs.rows is self.plan.rows:
            self.before[:], needs = needs.before, {}
        for i, op in enumerate(self.ops):
            try:
                if needs and (before := needs.get(op)):
                    self.before[i] = tuple(map(place, before))
                if op.kind in RECEIVING:
                    self._add_sender(i, op.sender(), number)
            except KeyError as absent:
                text = f"rank {op.rank} waits at {op} for {say(absent.args[0])}, which is in no row"
                raise PlanError(f"{text}\n{show(self.plan, [op])}") from None
        if stray := needs.keys() - number.keys():
            raise PlanError(f"needs are given for {say(min(stray))}, which is in no row\n{show(self.plan, [])}")

    def _add_sender(self, i: int, sender: Op, number: dict[Op, int]) -> None:
        for need in self.before[i]:
            if self.ops[need] == sender:
                self.sender[i] = need
                return
        self.sender[i] = number[sender]
        self.before[i] = (*self.before[i], self.sender[i])

    def order(self) -> list[int]:
        """The ops in an order in which they can be done: depth first, each after all that it waits for.

        Raises:
            PlanError: some ops wait for each other in a circle.
        """
        order: list[int] = []
        ahead, before = self.ahead, self.before
        done = [False] * len(self.ops) + [True]  # the last is for those with none ahead
        for first in range(len(self.ops)):
            here, path = first, {}  # what each on the way here waits for
            while not done[first]:
                need = ahead[here]
                if done[need]:
                    for need in before[here]:
                        if not done[need]:
                            break
                    else:
                        done[here] = True
                        order.append(here)
                        if path:
                            here, _ = path.popitem()
                        continue
                path[here] = need
                if need in path:
                    raise PlanError(self._tell_circle(list(path)[list(path).index(need) :]))
                here = need
        return order

    def _tell_circle(self, circle: list[int]) -> str:
        """The circle as `rank 0 waits at 0F0 for rank 1's 1F0, which waits for ...`, and the grid."""
        op = self.ops[circle[0]]
        text = f"this plan can never finish: rank {op.rank} waits at {op} for "
        for one, other in list(zip(circle, [*circle[1:], circle[0]], strict=True))[:_SHOWN]:
            ahead = " (ahead of it in its lane)" if other == self.ahead[one] else ""
            text += f"{say(self.ops[other])}{ahead}, which waits for "
        if len(circle) > _SHOWN:
            text += f"... {len(circle) - _SHOWN} more steps, back to {say(op)}"
        else:
            text = text.removesuffix(", which waits for ") + " again: a circle"
        return f"{text}\n{show(self.plan, [self.ops[i] for i in circle[:_SHOWN]])}"


def say(op: Op) -> str:
    """The op in words: `rank 2's 2F0`."""
    return f"rank {op.rank}'s {op}"


def show(plan: Plan, marked: list[Op]) -> str:
    """The grid with `marked` in brackets; of a large plan, only what is near them."""
    large = max(plan.ranks, *(len(row) for row in plan.rows), 0) > _SMALL
    return to_grid(plan, marked, around=_AROUND if large else None)


def check_plan(plan: Plan) -> None:
    """Looks whether `plan` can be carried out.

    Raises:
        PlanError: a step is missing, doubled, in the wrong row, or waits in a circle; or a message is not sent once and
            received once. The error names rank and step and shows the grid with the step in brackets.
    """
    Waits.of(plan).order()
    taken: dict[Op, Op] = {}
    for op in plan:
        if op.kind in RECEIVING:
            first = taken.setdefault(op.sender(), op)
            if first != op:
                both = f"rank {op.rank} receives the message of {say(op.sender())} twice, at {first} and at {op}"
                raise PlanError(f"{both}\n{show(plan, [first, op])}")
    for op in plan:
        if op.kind == "send" and op not in taken:
            raise PlanError(f"rank {op.rank} sends {op}, and rank {op.peer} never receives it\n{show(plan, [op])}")
