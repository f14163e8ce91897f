"""The schedule as data: what each rank does, in which order, and what each step waits for.

An `Op` is one step of one rank. A `Plan` holds a row of ops per rank, in the order in which the rank issues them,
and for each op the ops that must be over before it starts. A pipeline schedule or a collective algorithm is a
function from integers to a `Plan`; the executor runs it, the simulator times it, the view draws it, and the grader
compares it with what a trace recorded.

Each rank has lanes that work side by side: `compute`, `send` and `recv` (a full-duplex link). Ops of one lane of one
rank run one after another, in row order; ops of different lanes wait for each other only through `needs`.
"""

import gc
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import NamedTuple

COMPUTE, SEND, RECV = "compute", "send", "recv"
LANES = (COMPUTE, SEND, RECV)

# The letters are those of torch.distributed.pipelining: a forward, a whole backward, and the two halves of a
# backward that zero-bubble schedules keep apart (gradient of the input, gradient of the weights).
LETTERS = {"forward": "F", "backward": "B", "backward_input": "I", "backward_weight": "W"}
NAMES = {letter: name for name, letter in LETTERS.items()}

RECEIVING = frozenset({"recv", "recv_reduce"})  # overwrite what is held, or add to it
_TEXT = re.compile(r"(-?\d+)([A-Za-z_]+)(\d+)(?:([<>])(\d+))?(?:@(\w+))?(?::([\w./-]+))?(?:#(\d+))?")


class Op(NamedTuple):
    """One step of one rank.

    Attributes:
        rank: who does it.
        kind: `F`, `B`, `I`, `W` for a pass through a stage; `send`, `recv`, `recv_reduce` for a message (the last
            adds what arrives to what is held); any other word for other work.
        part: which stage, layer, bucket or chunk it works on; -1 where there is none.
        mb: which microbatch, counted from the first of the run.
        peer: the other rank of a message; -1 for none.
        lane: `compute`, `send` or `recv`.
        axis: the axis of the mesh, or the group, that a message or collective runs on (`dp`, `tp`, `pp`); empty for
            the default group.
        phase: the part of a training step that it belongs to: `forward`, `backward` or `step`. A message of a
            collective adds what the collective works on (`backward/3` for bucket 3), and its number where several have
            the same name (`backward/3.1`, `.1`).
        round: which round of a collective's algorithm a message belongs to.
    """

    rank: int
    kind: str
    part: int
    mb: int = 0
    peer: int = -1
    lane: str = COMPUTE
    axis: str = ""
    phase: str = ""
    round: int = 0

    def __str__(self) -> str:
        arrow = "" if self.peer < 0 else (">" if self.kind == "send" else "<") + str(self.peer)
        axis, phase = f"@{self.axis}" * bool(self.axis), f":{self.phase}" * bool(self.phase)
        return f"{self.part}{self.kind}{self.mb}{arrow}{axis}{phase}" + f"#{self.round}" * bool(self.round)

    @classmethod
    def parse(cls, rank: int, text: str) -> "Op":
        """The op of `rank` that prints as `text`.

        `2F0` is part 2, forward, microbatch 0. `1send0>3@dp:backward#2` sends part 1 to rank 3 on axis dp, in round 2
        of the backward pass.

        Raises:
            ValueError: no op prints so.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no step: expected part, kind, microbatch (and peer), as in 2F0 or 1send0>3")
        part, kind, mb, arrow, peer, axis, phase, number = match.groups()
        lane = {">": SEND, "<": RECV, None: COMPUTE}[arrow]
        return cls(rank, kind, int(part), int(mb), int(peer or -1), lane, axis or "", phase or "", int(number or 0))

    def sender(self) -> "Op":
        """For a receiving op, the op of the peer whose message it takes."""
        rank, _, part, mb, peer, _, axis, phase, round = self
        return Op(peer, "send", part, mb, rank, SEND, axis, phase, round)


def send(rank: int, peer: int, part: int, mb: int = 0, *, round: int = 0) -> Op:
    """`rank` sends chunk `part` to `peer`."""
    return Op(rank, "send", part, mb, peer, SEND, round=round)


def recv(rank: int, peer: int, part: int, mb: int = 0, *, round: int = 0, reduce: bool = False) -> Op:
    """`rank` receives chunk `part` from `peer`, over what it holds or, with `reduce`, added to it."""
    return Op(rank, "recv_reduce" if reduce else "recv", part, mb, peer, RECV, round=round)


Rows = tuple[tuple["Op", ...], ...]


class Needs(Mapping[Op, tuple[Op, ...]]):
    """Needs by number, for large plans: hashing an op costs more than an addition.

    To everybody it is the mapping from an op to those that it needs, which is made when it is first asked for. Whoever
    walks a whole plan takes `before`.

    Attributes:
        rows: the rows of the plan.
        before: for each op, with ops numbered rank after rank in row order, the numbers of those that it needs.
    """

    def __init__(self, rows: Rows, before: list[tuple[int, ...]]) -> None:
        self.rows, self.before = rows, before

    @cached_property
    def _by_op(self) -> dict[Op, tuple[Op, ...]]:
        ops = list(chain.from_iterable(self.rows))
        pairs = zip(ops, self.before, strict=True)
        return {op: tuple(ops[need] for need in before) for op, before in pairs if before}

    def __getitem__(self, op: Op) -> tuple[Op, ...]:
        return self._by_op[op]

    def __iter__(self) -> Iterator[Op]:
        return iter(self._by_op)

    def __len__(self) -> int:
        return len(self._by_op)


@dataclass(frozen=True)
class Plan:
    """A row of ops per rank, and what each op needs before it can start.

    Attributes:
        rows: `rows[r]` are rank r's ops.
        needs: for each op, the ops that must be over before it starts, beyond the order within its lane. A receiving
            op always needs its sender; `Plan.of` adds that.
    """

    rows: Rows
    needs: Mapping[Op, tuple[Op, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, ops: Iterable[Op], needs: Mapping[Op, Iterable[Op]] | None = None, ranks: int | None = None) -> "Plan":
        """Groups `ops` by rank, keeping their order, and pairs each receive with its send.

        `ranks` is the number of rows when the last ranks may have nothing to do; by default the highest rank plus one.
        """
        ops = list(ops)
        count = ranks if ranks is not None else 1 + max((op.rank for op in ops), default=-1)
        rows: list[list[Op]] = [[] for _ in range(count)]
        waits = {op: tuple(before) for op, before in (needs or {}).items()}
        for op in ops:
            rows[op.rank].append(op)
            if op.kind in RECEIVING:
                waits[op] = (*waits.get(op, ()), op.sender())
        return cls(tuple(tuple(row) for row in rows), waits)

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return len(self.rows)

    def __len__(self) -> int:
        return sum(len(row) for row in self.rows)

    def __iter__(self):
        for row in self.rows:
            yield from row


@contextmanager
def collector_paused() -> Iterator[None]:
    """Puts off the search for reference cycles: plans and traces have none, and it doubles the time of large ones.

    What was made meanwhile then counts as old, so that it is not searched at once.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on and not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if was_on:
            gc.enable()
