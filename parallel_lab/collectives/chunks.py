"""What the plans of all collectives share: messages in rounds, and chunks that may hold one another.

An algorithm lists its messages, round by round; `assemble` makes the `Plan` of them. It decides in which order a rank
issues its steps, and works out from the chunks that are read and written what each step waits for (the needs):

- a send waits for every receive that wrote into its chunk (read after write);
- a receive waits for every step of its rank that still reads or wrote its chunk (write after read, write after write),
  unless the message itself can only have been sent after that step was over. In a ring no such wait is left: the
  finished chunk comes round only after the partial sum that this rank sent has gone round;
- a `recv_reduce` lands in a scratch buffer, so those of one chunk do not wait for each other; but with receives posted
  `ahead` rounds early, that of round k waits for those of round k - ahead - 2, which bounds a rank's scratch.

Standard library only.
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
    """A plan whose parts are stretches of one flat tensor.

    Attributes:
        extents: `extents[part] = (first, last)`: the tensor is cut into near-equal leaves, and the part holds the
            leaves first <= i < last. Most algorithms have one leaf a part; where a message carries several leaves
            (halving, hierarchical), a part may hold others.
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
        return tuple(
            tuple(tuple(place[b] for b in self.needs.get(op, ()) if b.rank == op.rank) for op in row)
            for row in self.rows
        )

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
    needs = _Needs(n, extents, ahead)
    ops: list[list[Op]] = [[] for _ in range(n)]
    for number in sorted(rounds):
        sends = [send(m.source, m.target, m.part, round=number) for m in rounds[number]]
        receives = [recv(m.target, m.source, m.part, round=number, reduce=m.reduce) for m in rounds[number]]
        _refuse_conflict(sends, receives, extents)
        needs.add_round(sends, receives)
        for op in (*sends, *receives):
            ops[op.rank].append(op)
    row_order = (op for row in ops for op in _issue_order(row, needs.found, ahead))
    plan = Plan.of(row_order, needs.found, ranks=n)
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
    """Works out what each step waits for, round by round.

    For each rank and leaf it keeps the steps that wrote the leaf and those that have read it since; for each step the
    set of steps that are certainly over when it is over, as the bits of an integer.
    """

    def __init__(self, n: int, extents: Extents, ahead: int) -> None:
        self.extents = extents
        self.ahead = ahead
        self.found: dict[Op, tuple[Op, ...]] = {}
        self.written: dict[tuple[int, int], list[Op]] = defaultdict(list)
        self.read: dict[tuple[int, int], list[Op]] = defaultdict(list)
        self.reduced: list[list[Op]] = [[] for _ in range(n)]
        self.bit: dict[Op, int] = {}
        self.over: dict[Op, int] = {}

    def add_round(self, sends: list[Op], receives: list[Op]) -> None:
        """Finds the needs of one round's steps; they see the rounds before, not each other."""
        waits = {op: self._before_send(op) for op in sends}
        for op in sends:
            self._note(op, waits[op])
        waits |= {op: self._before_receive(op) for op in receives}
        for op in receives:
            self._note(op, waits[op])
        for op in (*sends, *receives):
            self._touch(op)

    def _before_send(self, op: Op) -> list[Op]:
        return [w for leaf in range(*self.extents[op.part]) for w in self.written[op.rank, leaf]]

    def _before_receive(self, op: Op) -> list[Op]:
        before: list[Op] = []
        for leaf in range(*self.extents[op.part]):
            writes = self.written[op.rank, leaf]
            before += [w for w in writes if op.kind == "recv" or w.kind == "recv"] + self.read[op.rank, leaf]
        implied = self.over[op.sender()]
        before = [b for b in before if not implied & self.bit[b]]
        if op.kind == "recv_reduce":
            before += [r for r in self.reduced[op.rank] if r.round == op.round - self.ahead - 2]
        return before

    def _note(self, op: Op, before: list[Op]) -> None:
        self.bit[op] = 1 << len(self.bit)
        if before:
            self.found[op] = tuple(dict.fromkeys(before))
        if op.kind in RECEIVING:
            before = [*before, op.sender()]
        self.over[op] = 0
        for b in before:
            self.over[op] |= self.over[b] | self.bit[b]

    def _touch(self, op: Op) -> None:
        for leaf in range(*self.extents[op.part]):
            if op.kind == "send":
                self.read[op.rank, leaf].append(op)
                continue
            if op.kind == "recv":
                self.written[op.rank, leaf].clear()
            self.written[op.rank, leaf].append(op)
            self.read[op.rank, leaf].clear()
        if op.kind == "recv_reduce":
            self.reduced[op.rank].append(op)


def _refuse_conflict(sends: list[Op], receives: list[Op], extents: Extents) -> None:
    reading = {(op.rank, leaf): op for op in sends for leaf in range(*extents[op.part])}
    for op in receives:
        for leaf in range(*extents[op.part]):
            leaving = reading.get((op.rank, leaf))
            if leaving and (op.kind == "recv" or leaving.part != op.part):
                raise ValueError(f"rank {op.rank}: {op} writes what {leaving} sends in the same round")
