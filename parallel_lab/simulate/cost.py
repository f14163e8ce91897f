"""What an op costs: seconds, bytes on the wire, bytes held. A cost model is any object with the methods of `Cost`.

`AlphaBeta` prices messages over one kind of link, `Topology` over two (inside a node and between nodes), `PassCost`
the passes of a pipeline, `Roofline` computation. The times are a model's, not a machine's: they say what would happen
on hardware as described, and a trace made of them is marked as simulated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from parallel_lab.plan import RECEIVING, Op

PerPart = int | Sequence[int] | Callable[[int], int]
"""Bytes of a part: the same for all, one for each, or a function of the part."""

PerOp = float | Callable[[Op], float]
"""A number for all ops, or a function of the op."""


class Cost(Protocol):
    """What the simulator asks of a cost model.

    It may also have `held(op) -> int`: bytes that the rank holds from the start of `op` on (positive), or gives back
    when `op` ends (negative).
    """

    def seconds(self, op: Op) -> float:
        """How long `op` takes, in seconds; for a message, from its start to its arrival."""
        ...

    def bytes(self, op: Op) -> int:
        """The payload of a send or a receive, in bytes; 0 for computation."""
        ...


class Wire(Protocol):
    """A link between two ranks: `runtime.Link` is one."""

    @property
    def latency_s(self) -> float:
        """Seconds before the first byte arrives (alpha)."""
        ...

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth (beta)."""
        ...


def is_message(op: Op) -> bool:
    """Whether `op` sends or receives."""
    return op.kind == "send" or op.kind in RECEIVING


def _size(part_bytes: PerPart, part: int) -> int:
    if isinstance(part_bytes, int):
        return part_bytes
    return part_bytes(part) if callable(part_bytes) else part_bytes[part]


def _value(number: PerOp, op: Op) -> float:
    return number(op) if callable(number) else number


@dataclass(frozen=True)
class AlphaBeta:
    """Every message takes `latency_s + bytes / bytes_per_s`: Hockney's model (1994), the alpha-beta model.

    Attributes:
        latency_s: alpha, seconds a message costs however short it is.
        bytes_per_s: beta, the bandwidth of a rank's link, full in both directions at once.
        part_bytes: the size of a chunk; a sequence or a function of the part where chunks differ.
        compute_s: seconds of an op that is no message, or a function of the op (`Roofline(...).seconds` is one).
    """

    latency_s: float
    bytes_per_s: float
    part_bytes: PerPart = 0
    compute_s: PerOp = 0.0

    def seconds(self, op: Op) -> float:
        """Seconds of `op`."""
        if is_message(op):
            return self.latency_s + self.bytes(op) / self.bytes_per_s
        return _value(self.compute_s, op)

    def bytes(self, op: Op) -> int:
        """Bytes of a message; 0 for other ops."""
        return _size(self.part_bytes, op.part) if is_message(op) else 0

    def held(self, op: Op) -> int:
        """0: this model knows no memory."""
        return 0


@dataclass(frozen=True)
class Topology:
    """Alpha-beta with two kinds of link: ranks r and s share a node if r // ranks_per_node == s // ranks_per_node.

    Attributes:
        ranks_per_node: ranks that a fast link joins, numbered in a row.
        intra: the link inside a node, with `latency_s` and `bytes_per_s`.
        inter: the link between nodes. Each rank has its own: ranks of a node do not share it.
        part_bytes, compute_s: as in `AlphaBeta`.
    """

    ranks_per_node: int
    intra: Wire
    inter: Wire
    part_bytes: PerPart = 0
    compute_s: PerOp = 0.0

    def link(self, rank: int, peer: int) -> Wire:
        """The link between two ranks."""
        same = rank // self.ranks_per_node == peer // self.ranks_per_node
        return self.intra if same else self.inter

    def seconds(self, op: Op) -> float:
        """Seconds of `op`."""
        if not is_message(op):
            return _value(self.compute_s, op)
        link = self.link(op.rank, op.peer)
        return link.latency_s + self.bytes(op) / link.bytes_per_s

    def bytes(self, op: Op) -> int:
        """Bytes of a message; 0 for other ops."""
        return _size(self.part_bytes, op.part) if is_message(op) else 0

    def held(self, op: Op) -> int:
        """0: this model knows no memory."""
        return 0


@dataclass(frozen=True)
class PassCost:
    """The passes of a pipeline. Each number may be a sequence with one for each stage (`op.part`).

    Attributes:
        forward_s, backward_s: seconds of F and of a whole B. A backward computes two gradients where a forward
            computes one product, hence twice the time.
        input_s, weight_s: seconds of the two halves of a split backward, I and W.
        message_s: seconds of a send or receive.
        activation_bytes: bytes that F leaves behind for the backward, given back at the end of B, or of W where the
            backward is split. (What I could already give back is not modelled.)
        message_bytes: the payload of a send or receive.
    """

    forward_s: float | Sequence[float] = 1.0
    backward_s: float | Sequence[float] = 2.0
    input_s: float | Sequence[float] = 1.0
    weight_s: float | Sequence[float] = 1.0
    message_s: float | Sequence[float] = 0.0
    activation_bytes: int | Sequence[int] = 0
    message_bytes: int | Sequence[int] = 0

    @cached_property
    def _seconds(self) -> Mapping[str, float | Sequence[float]]:
        passes = {"F": self.forward_s, "B": self.backward_s, "I": self.input_s, "W": self.weight_s}
        return passes | dict.fromkeys(("send", *RECEIVING), self.message_s)

    def seconds(self, op: Op) -> float:
        """Seconds of `op`; ValueError if it is neither a pass nor a message."""
        try:
            took_s = self._seconds[op.kind]
        except KeyError:
            raise ValueError(f"PassCost prices F, B, I, W and messages, not {op}") from None
        return took_s if isinstance(took_s, (int, float)) else took_s[op.part]

    def bytes(self, op: Op) -> int:
        """Bytes of a message; 0 for a pass."""
        if not is_message(op):
            return 0
        return self.message_bytes if isinstance(self.message_bytes, int) else self.message_bytes[op.part]

    def held(self, op: Op) -> int:
        """Bytes of activations that F takes (positive) and that B or W gives back (negative)."""
        sign = {"F": 1, "B": -1, "W": -1}.get(op.kind, 0)
        held = self.activation_bytes
        return sign * (held if isinstance(held, int) else held[op.part]) if sign else 0


@dataclass(frozen=True)
class Roofline:
    """Computation takes as long as the slower of its arithmetic and its memory traffic (Williams et al., 2009).

    time = max(flops / flops_per_s, moved bytes / bytes_per_s). Use it by itself for a plan of computation, or give
    `Roofline(...).seconds` to `AlphaBeta` or `Topology` as `compute_s`.

    Attributes:
        flops_per_s: peak arithmetic.
        bytes_per_s: bandwidth of the memory.
        flops, moved_bytes: what an op does and what it reads and writes; a number or a function of the op.
    """

    flops_per_s: float
    bytes_per_s: float
    flops: PerOp = 0.0
    moved_bytes: PerOp = 0.0

    @property
    def ridge(self) -> float:
        """Flops a byte above which arithmetic is the limit, below which memory is."""
        return self.flops_per_s / self.bytes_per_s

    def time_s(self, flops: float, moved_bytes: float) -> float:
        """Seconds for so much arithmetic over so many bytes."""
        return max(flops / self.flops_per_s, moved_bytes / self.bytes_per_s)

    def bound(self, flops: float, moved_bytes: float) -> Literal["compute", "memory"]:
        """What limits it."""
        return "compute" if flops >= self.ridge * moved_bytes else "memory"

    def seconds(self, op: Op) -> float:
        """Seconds of `op`; a Roofline prices no messages, so ValueError for one."""
        if is_message(op):
            raise ValueError(f"a Roofline prices computation, not the message {op}")
        return self.time_s(_value(self.flops, op), _value(self.moved_bytes, op))

    def bytes(self, op: Op) -> int:
        """0: computation sends nothing."""
        return 0

    def held(self, op: Op) -> int:
        """0: this model knows no memory."""
        return 0
