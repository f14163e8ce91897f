"""What the plans of all collectives share: messages in rounds, and chunks that may hold one another.

An algorithm lists its messages, round by round; `assemble` makes the `Plan` of them. It decides in which order a rank
issues its steps, and works out from the chunks that are read and written what each step waits for (the needs):

- a send waits for every receive that wrote into its chunk (read after write);
- a receive waits for every step of its rank that still reads or wrote its chunk (write after read, write after write),
  unless the message itself can only have been sent after that step was over. In a ring no such wait is left: the
  finished chunk comes round only after the partial sum that this rank sent has gone round;
- a `recv_reduce` lands in a scratch buffer, so those of one chunk do not wait for each other; but with receives posted
  `ahead` rounds early, that of round i waits for those of round i - ahead - 2, which bounds a rank's scratch.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from parallel_lab.plan import RECEIVING, Op, Plan, recv, send

Extents = tuple[tuple[int, int], ...]
ALL = 1 << 30  # more rounds than any plan has


class Message(NamedTuple):
    """In `round`, `source` sends chunk `part` to `target`, who adds it to its own (`reduce`) or overwrites that."""

    round: int
    source: int
    target: int
    part: int
    reduce: bool = False


@dataclass(frozen=True)
class ChunkPlan(Plan):
    """A plan whose parts are stretches of one flat tensor, which is cut into near-equal leaves.

    Attributes:
        extents: `extents[part] = (first, last)`: the part holds the leaves first <= i < last. Most algorithms have one
            leaf per part; where a message carries several (halving, hierarchical), a part may hold others.
    """

    extents: Extents = ()

    @property
    def leaves(self) -> int:
        """How many near-equal leaves the tensor is cut into."""
        return max(last for _, last in self.extents)

    @property
    def rounds(self) -> int:
        """How many rounds there are: one more than the highest `round`, and 0 for one rank."""
        return 1 + max((op.round for op in self), default=-1)

    @cached_property
    def waits(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """`waits[rank][i]`: the places in the rank's own row of the steps that its step i needs."""
        place = {op: i for row in self.rows for i, op in enumerate(row)}
        own = {op: tuple(place[b] for b in self.needs.get(op, ()) if b.rank == op.rank) for op in place}
        return tuple(tuple(own[op] for op in row) for row in self.rows)

    def bounds(self, size: int) -> list[tuple[int, int]]:
        """For each part its stretch `(start, stop)` of a tensor of `size` elements.

        Leaves are near-equal: the first `size % leaves` have one element more, as in `torch.tensor_split`.
        """
        short, longer = divmod(size, self.leaves)
        return [(a * short + min(a, longer), b * short + min(b, longer)) for a, b in self.extents]

    def sent(self, rank: int, size: int) -> int:
        """How many elements of a tensor of `size` elements `rank` sends, over all rounds."""
        bounds = self.bounds(size)
        return sum(bounds[op.part][1] - bounds[op.part][0] for op in self.rows[rank] if op.kind == "send")


def leaves(count: int) -> Extents:
    """The extents of `count` parts with one leaf each."""
    return tuple((i, i + 1) for i in range(count))


def assemble(n: int, messages: Iterable[Message], extents: Extents, ahead: int = ALL) -> ChunkPlan:
    """The plan of `n` ranks that carries out `messages`; in a round each rank issues its steps in the order given.

    `extents` says which leaves each part holds. Receives are posted `ahead` rounds early, and scratch is held for at
    most ahead + 2 rounds.

    Raises:
        ValueError: n < 1, or a rank would, in one round, receive into a chunk that it sends. A `recv_reduce` into
            exactly the part that is sent is no conflict: it is added once the send is over.
    """
    if n < 1:
        raise ValueError(f"n={n}: a collective has at least 1 rank")
    rounds: dict[int, list[Message]] = defaultdict(list)
    for message in messages:
        rounds[message.round].append(message)
    needs = _Needs(extents, ahead)
    rows: list[list[Op]] = [[] for _ in range(n)]
    for number in sorted(rounds):
        sends = [send(m.source, m.target, m.part, round=number) for m in rounds[number]]
        receives = [recv(m.target, m.source, m.part, round=number, reduce=m.reduce) for m in rounds[number]]
        needs.add_round(sends, receives)
        for op in (*sends, *receives):
            rows[op.rank].append(op)
    plan = Plan.of((op for row in rows for op in _issue_order(row, needs.found, ahead)), needs.found, ranks=n)
    return ChunkPlan(plan.rows, plan.needs, extents)


def _issue_order(row: list[Op], needs: dict[Op, tuple[Op, ...]], ahead: int) -> Iterator[Op]:
    """A rank's steps, round after round: the receives of this round and of those `ahead`, then its sends.

    Receives stay in the order of their rounds, and one is brought forward only past rounds that hold nothing it waits
    for. So a rank that waits has issued all its steps of the rounds before, and no two can wait for each other.
    """
    receives = [op for op in row if op.kind in RECEIVING]
    posted = 0
    for number in sorted({op.round for op in row}):
        while posted < len(receives):
            op = receives[posted]
            if op.round > number + ahead or any(need.round >= number for need in needs.get(op, ())):
                break
            yield op
            posted += 1
        yield from (op for op in row if op.kind == "send" and op.round == number)


class _Needs:
    """Works out what each step waits for, round by round."""

    def __init__(self, extents: Extents, ahead: int) -> None:
        self.extents = extents
        self.ahead = ahead
        self.found: dict[Op, tuple[Op, ...]] = {}
        self.written: dict[tuple[int, int], list[Op]] = defaultdict(list)  # by rank and leaf: the steps that wrote it
        self.read: dict[tuple[int, int], list[Op]] = defaultdict(list)  # and those that have read it since
        self.reduced: dict[tuple[int, int], list[Op]] = defaultdict(list)  # by rank and round
        self.over: dict[Op, int] = {}  # the steps, as bits, that are certainly over when this one is; itself too

    def add_round(self, sends: list[Op], receives: list[Op]) -> None:
        """Finds the needs of one round's steps; they see the rounds before, not each other."""
        self._refuse_conflict(sends, receives)
        for op in sends:
            self._note(op, [w for place in self._places(op) for w in self.written[place]], 0)
        for op in receives:
            before: list[Op] = []
            for place in self._places(op):
                before += [w for w in self.written[place] if "recv" in (op.kind, w.kind)] + self.read[place]
            arrived = self.over[op.sender()]
            before = [b for b in before if self.over[b] & ~arrived]
            if op.kind == "recv_reduce":
                before += self.reduced[op.rank, op.round - self.ahead - 2]
            self._note(op, before, arrived)
        for op in sends:
            for place in self._places(op):
                self.read[place].append(op)
        for op in receives:
            for place in self._places(op):
                self.written[place] = [op] if op.kind == "recv" else [*self.written[place], op]
                self.read[place] = []
            if op.kind == "recv_reduce":
                self.reduced[op.rank, op.round].append(op)

    def _places(self, op: Op) -> list[tuple[int, int]]:
        return [(op.rank, leaf) for leaf in range(*self.extents[op.part])]

    def _note(self, op: Op, before: list[Op], over: int) -> None:
        if before:
            self.found[op] = tuple(dict.fromkeys(before))
        for b in before:
            over |= self.over[b]
        self.over[op] = over | 1 << len(self.over)

    def _refuse_conflict(self, sends: list[Op], receives: list[Op]) -> None:
        reading = {place: op for op in sends for place in self._places(op)}
        for op in receives:
            for place in self._places(op):
                leaving = reading.get(place)
                if leaving and (op.kind == "recv" or leaving.part != op.part):
                    raise ValueError(f"rank {op.rank}: {op} writes what {leaving} sends in the same round")
