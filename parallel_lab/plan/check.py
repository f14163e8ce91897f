"""Is this plan possible? `check_plan` raises `PlanError`, says which rank's step is wrong and shows it in the grid.

A plan is possible when every op stands once, in its own rank's row; when everything that an op waits for is in the
plan; when every message is sent once and taken once; and when the waits form no circle. An op waits for its `needs`,
for the op ahead of it in its lane, and, if it receives, for its sender. `Waits` is that graph over numbers instead of
ops: hashing an op costs more than an addition, so it is done once, and the simulator walks the same graph.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from parallel_lab.plan.op import RECEIVING, Op, Plan
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
        ops: the op of each number. After those of the rows come ops that are awaited though no row holds them.
        number: the number of each op.
        before: for each op of a row, the numbers of its needs, its sender among them.
        sender: for each op of a row, the number of the send whose message it receives; -1 for none.
        lanes: for each lane of each rank (or each port, where `port` names them), its numbers in row order: each waits
            for the one ahead of it.
        lane: for each op of a row, the place of its lane in `lanes`.
    """

    ops: list[Op]
    number: dict[Op, int]
    before: list[tuple[int, ...]]
    sender: list[int]
    lanes: list[list[int]]
    lane: list[int]

    @classmethod
    def of(cls, plan: Plan, port: Callable[[Op], str] | None = None) -> "Waits":
        """The graph of `plan`, which may be impossible, but holds no op twice (`check_rows`).

        `port` names what an op shares with those that it waits for in the row order; by default its lane.
        """
        ops = list(plan)
        size = len(ops)
        waits = cls(ops, {op: i for i, op in enumerate(ops)}, [()] * size, [-1] * size, [], [])
        waits._add_lanes(plan, port or attrgetter("lane"))
        waits._add_needs(plan)
        waits._add_senders()
        return waits

    def _add_lanes(self, plan: Plan, port: Callable[[Op], str]) -> None:
        for row in plan.rows:
            place: dict[str, int] = {}
            for name in map(port, row):
                k = place.get(name, -1)
                if k < 0:
                    k = place[name] = len(self.lanes)
                    self.lanes.append([])
                self.lanes[k].append(len(self.lane))
                self.lane.append(k)

    def _number(self, op: Op) -> int:
        """The number of `op`, a new one if no row holds it."""
        if op not in self.number:
            self.number[op] = len(self.ops)
            self.ops.append(op)
        return self.number[op]

    def _add_needs(self, plan: Plan) -> None:
        number, before = self.number, self.before
        for op, needs in plan.needs.items():
            i = number.get(op, len(before))
            if i < len(before):
                known = tuple(map(number.get, needs))
                before[i] = tuple(map(self._number, needs)) if None in known else known  # type: ignore[assignment]

    def _add_senders(self) -> None:
        for i, op in enumerate(self.ops[: len(self.before)]):
            if op.kind in RECEIVING:
                sender = self.sender[i] = self._number(op.sender())
                if sender not in self.before[i]:
                    self.before[i] = (*self.before[i], sender)

    def order(self) -> list[int]:
        """The ops of all rows in an order in which they can be done, shorter if some never can.

        Kahn's algorithm over lanes: a lane goes on until it meets an op that must wait, and the op it waits for wakes
        it. So each op is looked at once, and once more for each time it has to wait.
        """
        done, order = [False] * len(self.ops), []
        left = [lane[::-1] for lane in self.lanes]  # the next op last, to be popped
        asleep: dict[int, list[int]] = {}
        awake = list(range(len(left)))
        for k in awake:  # grows while it is walked
            lane = left[k]
            while lane:
                i = lane[-1]
                for j in self.before[i]:
                    if not done[j]:
                        asleep.setdefault(j, []).append(k)
                        break
                else:
                    done[i] = True
                    order.append(lane.pop())
                    awake += asleep.pop(i, ())
                    continue
                break
        return order

    def blockers(self, i: int) -> list[int]:
        """All that op `i` waits for: the op ahead of it in its lane, then its needs; nothing for an op in no row."""
        if i >= len(self.before):
            return []
        lane = self.lanes[self.lane[i]]
        place = bisect_left(lane, i)
        return [*lane[max(place - 1, 0) : place], *self.before[i]]

    def circle(self) -> list[int]:
        """Numbers that wait for each other in a circle, each for the next and the last for the first; empty if none.

        Only for a graph with nothing missing: there, whatever can never start waits for something that never ends, so
        following such waits must come round.
        """
        stuck = set(range(len(self.ops))).difference(self.order())
        if not stuck or len(self.ops) > len(self.before):
            return []
        path: dict[int, int] = {}
        here = min(stuck)
        while here not in path:
            path[here] = len(path)
            here = next(j for j in self.blockers(here) if j in stuck)
        return list(path)[path[here] :]


def say(op: Op) -> str:
    """The op in words: `rank 2's 2F0`."""
    return f"rank {op.rank}'s {op}"


def show(plan: Plan, marked: list[Op]) -> str:
    """The grid with `marked` in brackets; of a large plan, only what is near them."""
    large = max(plan.ranks, *(len(row) for row in plan.rows), 0) > _SMALL
    return to_grid(plan, marked, around=_AROUND if large else None)


def tell_circle(waits: Waits, circle: list[int]) -> str:
    """A circle of waits in one sentence: `rank 0 waits at X for rank 1's Y, which waits for ...`."""
    op = waits.ops[circle[0]]
    text = f"rank {op.rank} waits at {op} for "
    for here, then in zip(circle[:_SHOWN], [*circle[1:], circle[0]], strict=False):
        one, other = waits.ops[here], waits.ops[then]
        ahead = " (ahead of it in its lane)" if (one.rank, one.lane) == (other.rank, other.lane) and then < here else ""
        text += f"{say(other)}{ahead}, which waits for "
    if len(circle) > _SHOWN:
        return text + f"... {len(circle) - _SHOWN} more steps, back to {say(op)}"
    return text.removesuffix(", which waits for ") + " again: a circle"


def check_rows(plan: Plan) -> None:
    """Looks for ops in the wrong row and for ops that stand twice.

    Raises:
        PlanError: an op stands in another rank's row, or twice.
    """
    for rank, row in enumerate(plan.rows):
        for op in row:
            if op.rank != rank:
                raise PlanError(f"{say(op)} stands in the row of rank {rank}\n{show(plan, [op])}")
    if len(set(plan)) < len(plan):
        op, times = Counter(plan).most_common(1)[0]
        raise PlanError(f"{say(op)} stands {times} times, and a step is done once\n{show(plan, [op])}")


def check_plan(plan: Plan) -> None:
    """Looks whether `plan` can be carried out.

    Raises:
        PlanError: a step is missing, doubled, in the wrong row, or waits in a circle; or a message is not sent once and
            received once. The error names rank and step and shows the grid with the step in brackets.
    """
    check_rows(plan)
    waits = Waits.of(plan)
    _check_needs(plan, waits)
    _check_messages(plan)
    if circle := waits.circle():
        marked = [waits.ops[i] for i in circle[:_SHOWN]]
        raise PlanError(f"this plan can never finish: {tell_circle(waits, circle)}\n{show(plan, marked)}")


def _check_needs(plan: Plan, waits: Waits) -> None:
    size = len(waits.before)
    for i, needs in enumerate(waits.before):
        for j in needs:
            if j >= size:
                op, need = waits.ops[i], waits.ops[j]
                raise PlanError(f"rank {op.rank} waits at {op} for {say(need)}, which is in no row\n{show(plan, [op])}")
    for op in plan.needs:
        if waits.number.get(op, size) >= size:
            raise PlanError(f"needs are given for {say(op)}, which is in no row\n{show(plan, [])}")


def _check_messages(plan: Plan) -> None:
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
