"""The cost of a pipeline's passes: seconds, and the activations that they hold."""

from dataclasses import dataclass
from functools import cached_property

from parallel_lab.network.cost import MESSAGES, CostModel, PerOp, value
from parallel_lab.plan import NAMES, Op


@dataclass(frozen=True)
class PassCost(CostModel):
    """The passes of a pipeline. Each number may be a sequence with one for each stage (`op.part`).

    Attributes:
        forward_s, backward_s: Seconds of `F` and of a whole `B`. A backward computes two gradients where a forward
            computes one product, hence twice the time.
        input_s, weight_s: Seconds of the two halves of a split backward, `I` and `W`.
        message_s: Seconds of a send or receive.
        activation_bytes: S_B, bytes that `F` leaves behind for the backward (the zero-bubble paper's M_B, Qi et al.
            2023, section 2.3). `B` gives them back when it ends, and so do `I` and `W` together.
        message_bytes: The payload of a send or receive.
        weight_bytes: S_W, the bytes of them that `W` still needs (the paper's M_W); `I` gives back the others. None
            where `I` can give back nothing.
    """

    forward_s: PerOp = 1.0
    backward_s: PerOp = 2.0
    input_s: PerOp = 1.0
    weight_s: PerOp = 1.0
    message_s: PerOp = 0.0
    activation_bytes: PerOp = 0
    message_bytes: PerOp = 0
    weight_bytes: PerOp | None = None

    @cached_property
    def _seconds(self) -> dict[str, PerOp]:
        passes = {"F": self.forward_s, "B": self.backward_s, "I": self.input_s, "W": self.weight_s}
        return passes | dict.fromkeys(MESSAGES, self.message_s)

    def seconds(self, op: Op) -> float:
        """Seconds of a pass or a message."""
        number = self._seconds.get(op.kind)
        if number is None:
            raise ValueError(f"PassCost prices F, B, I, W and messages, not {op}")
        return number if isinstance(number, float) else value(number, op)

    def bytes(self, op: Op) -> int:
        """Bytes of a message; 0 for a pass."""
        return value(self.message_bytes, op) if op.kind in MESSAGES else 0

    def held(self, op: Op) -> int:
        """Bytes of activations that `F` takes (positive), and that `B`, or `I` and `W`, give back (negative)."""
        kind = op.kind
        if kind not in NAMES:
            return 0
        whole = value(self.activation_bytes, op)
        if kind == "F" or kind == "B":
            return whole if kind == "F" else -whole
        kept = whole if self.weight_bytes is None else value(self.weight_bytes, op)
        return -kept if op.kind == "W" else kept - whole
