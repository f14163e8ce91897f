"""The schedule as data: what each rank does, in which order, and what each step waits for.

An `Op` is one step of one rank. A `Plan` holds a row of ops a rank, in the order in which the rank issues them,
and for each op the ops that must be over before it starts. A pipeline schedule or a collective algorithm is a
function from integers to a `Plan`; the executor runs it, the simulator times it, the view draws it, and the grader
compares it with what a trace recorded.

Each rank has lanes that work side by side: `compute`, `send` and `recv` (a full-duplex link). Ops of one lane of one
rank run one after another, in row order; ops of different lanes wait for each other only through `needs`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

COMPUTE, SEND, RECV = "compute", "send", "recv"
LANES = (COMPUTE, SEND, RECV)

# The letters are those of torch.distributed.pipelining: a forward, a whole backward, and the two halves of a
# backward that zero-bubble schedules keep apart (gradient of the input, gradient of the weights).
LETTERS = {"forward": "F", "backward": "B", "backward_input": "I", "backward_weight": "W"}
NAMES = {letter: name for name, letter in LETTERS.items()}

RECEIVING = frozenset({"recv", "recv_reduce"})  # overwrite what is held, or add to it
_TEXT = re.compile(r"(-?\d+)([A-Za-z_]+)(\d+)(?:([<>])(\d+))?")


class Op(NamedTuple):
    """One step of one rank.

    Attributes:
        rank: who does it.
        kind: `F`, `B`, `I`, `W` for a pass through a stage; `send`, `recv`, `recv_reduce` for a message (the last
            adds what arrives to what is held); any other word for other work.
        part: which stage, layer, bucket or chunk it works on; -1 where there is none.
        mb: which microbatch, or which round of a collective.
        peer: the other rank of a message; -1 for none.
        lane: `compute`, `send` or `recv`.
    """

    rank: int
    kind: str
    part: int
    mb: int = 0
    peer: int = -1
    lane: str = COMPUTE

    def __str__(self) -> str:
        arrow = "" if self.peer < 0 else (">" if self.kind == "send" else "<") + str(self.peer)
        return f"{self.part}{self.kind}{self.mb}{arrow}"

    @classmethod
    def parse(cls, rank: int, text: str) -> "Op":
        """The op of `rank` that prints as `text` (`2F0`, `1send0>3`, `1recv0<2`); ValueError if there is none."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no step: expected part, kind, microbatch (and peer), as in 2F0 or 1send0>3")
        part, kind, mb, arrow, peer = match.groups()
        lane = SEND if arrow == ">" else RECV if arrow == "<" else COMPUTE
        return cls(rank, kind, int(part), int(mb), int(peer) if peer else -1, lane)

    def sender(self) -> "Op":
        """For a receiving op, the op of the peer whose message it takes."""
        return Op(self.peer, "send", self.part, self.mb, self.rank, SEND)


def send(rank: int, peer: int, part: int, mb: int = 0) -> Op:
    """`rank` sends chunk `part` to `peer` in round `mb`."""
    return Op(rank, "send", part, mb, peer, SEND)


def recv(rank: int, peer: int, part: int, mb: int = 0, *, reduce: bool = False) -> Op:
    """`rank` receives chunk `part` from `peer` in round `mb`, over what it holds or, with `reduce`, added to it."""
    return Op(rank, "recv_reduce" if reduce else "recv", part, mb, peer, RECV)


@dataclass(frozen=True)
class Plan:
    """A row of ops a rank, in issue order, and what each op needs before it can start.

    Attributes:
        rows: `rows[r]` are rank r's ops.
        needs: for each op, the ops that must be over before it starts, beyond the order within its lane. A receiving
            op always needs its sender; `Plan.of` adds that.
    """

    rows: tuple[tuple[Op, ...], ...]
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
