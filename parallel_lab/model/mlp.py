"""A small classifier: the model for the handwritten digits, and for whatever needs no sequence."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Linears with a ReLU between each two: (batch, widths[0]) to logits (batch, widths[-1]).

    The default takes an 8 x 8 digit, flattened, to its ten classes.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 10)) -> None:
        if len(widths) < 2:
            raise ValueError(f"widths {tuple(widths)}: expected at least an input and an output width")
        chain: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            chain += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*chain[:-1])

    def layers(self) -> list[nn.Module]:
        """The modules in order of use; the output of each is the input of the next."""
        return list(self)
