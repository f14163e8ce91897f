"""What the plans of all collectives share: messages in rounds, and chunks that may hold one another.

An algorithm lists its messages, a round at a time; `assemble` makes the `Plan`. It puts each rank's receives of a round
before its sends, so that a receive is posted while the round before is still on the wire, and it works out what each
step waits for from the chunks that are read and written:

- a send waits for every receive that wrote into its chunk (read after write);
- a receive waits for every send that still reads from its chunk, and for the receives that wrote it before;
- a `recv_reduce` lands in a scratch buffer, so those of the same chunk need not wait for each other; but the one of
  round k waits for that of round k-2, and no rank holds the scratch of more than two rounds.

Standard library only.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from parallel_lab.plan import Op, Plan, recv, send

Extents = tuple[tuple[int, int], ...]


class Message(NamedTuple):
    """In `round`, `source` sends chunk `part` to `target`, who adds it to what it holds (`reduce`) or overwrites."""

    round: int
    source: int
    target: int
    part: int
    reduce: bool = False


@dataclass(frozen=True)
class ChunkPlan(Plan):
    """A plan whose parts are stretches of one flat tensor.

    Attributes:
        extents: `extents[part] = (first, last)`: the tensor is cut into near-equal leaves, and the part holds the leaves
            first <= i < last. Most algorithms have one leaf a part; where a message carries several leaves (halving,
            hierarchical), parts overlap.
    """

    extents: Extents = ()

    @property
    def leaves(self) -> int:
        """How many near-equal leaves the tensor is cut into."""
        return max(last for _, last in self.extents)

    @property
    def rounds(self) -> int:
        """How many rounds there are: one more than the highest `mb`, and 0 for one rank."""
        return 1 + max((op.mb for op in self), default=-1)

    def bounds(self, size: int) -> list[tuple[int, int]]:
        """For each part the stretch `[start, stop)` of a tensor of `size` elements.

        Leaves are near-equal: the first `size % leaves` have one element more, as in `torch.tensor_split`.
        """
        short, longer = divmod(size, self.leaves)
        return [(a * short + min(a, longer), b * short + min(b, longer)) for a, b in self.extents]


def leaves(count: int) -> Extents:
    """The extents of `count` parts with a leaf each."""
    return tuple((i, i + 1) for i in range(count))


def assemble(n: int, messages: Iterable[Message], extents: Extents) -> ChunkPlan:
    """The plan of `n` ranks that carries out `messages`.

    Raises:
        ValueError: a rank would receive, in one round, into a chunk that it sends in that round.
    """
    rounds: dict[int, list[Message]] = defaultdict(list)
    for message in messages:
        rounds[message.round].append(message)
    ops: list[Op] = []
    hazards = [_Hazards(extents) for _ in range(n)]
    needs: dict[Op, tuple[Op, ...]] = {}
    for number in sorted(rounds):
        sends = [send(m.source, m.target, m.part, m.round) for m in rounds[number]]
        receives = [recv(m.target, m.source, m.part, m.round, reduce=m.reduce) for m in rounds[number]]
        _refuse_conflict(sends, receives, extents)
        # All needs of a round are taken before any of its steps is noted: they see the rounds before.
        needs |= {op: before for op in (*receives, *sends) if (before := hazards[op.rank].before(op))}
        for op in (*receives, *sends):
            hazards[op.rank].note(op)
        ops += receives + sends
    return replace(ChunkPlan.of(ops, needs, ranks=n), extents=extents)


class _Hazards:
    """Which steps of one rank last wrote each leaf, and which have read it since."""

    def __init__(self, extents: Extents) -> None:
        self.extents = extents
        self.written: Mapping[int, list[Op]] = defaultdict(list)
        self.read: Mapping[int, list[Op]] = defaultdict(list)

    def before(self, op: Op) -> tuple[Op, ...]:
        """What must be over before `op` starts."""
        found: dict[Op, None] = {}  # a set that keeps its order
        for leaf in range(*self.extents[op.part]):
            if op.kind == "recv_reduce":
                found |= dict.fromkeys(w for w in self.written[leaf] if w.kind == "recv" or w.mb <= op.mb - 2)
            else:
                found |= dict.fromkeys(self.written[leaf])
            if op.kind != "send":
                found |= dict.fromkeys(self.read[leaf])
        return tuple(found)

    def note(self, op: Op) -> None:
        """Takes down that `op` reads or writes its leaves."""
        for leaf in range(*self.extents[op.part]):
            if op.kind == "send":
                self.read[leaf].append(op)
                continue
            if op.kind == "recv":
                self.written[leaf].clear()
            self.written[leaf].append(op)
            self.read[leaf].clear()


def _refuse_conflict(sends: list[Op], receives: list[Op], extents: Extents) -> None:
    """ValueError where a rank's receive and its send of one round share a leaf."""
    reading = {(op.rank, leaf): op for op in sends for leaf in range(*extents[op.part])}
    for op in receives:
        for leaf in range(*extents[op.part]):
            if (op.rank, leaf) in reading:
                raise ValueError(f"rank {op.rank}: {op} writes what {reading[op.rank, leaf]} sends in the same round")
