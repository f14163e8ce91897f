"""The feed-forward part of a block: what each token goes through by itself."""

import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.model.config import GPTConfig


class FeedForward(nn.Module):
    """Two linears on each token alone, with a GELU between: (..., width) to the same.

    Gated, it is SwiGLU: a third linear `gate`, whose SiLU multiplies what `up` returns (Shazeer 2020, equation 6).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = config.hidden_width
        self.up = nn.Linear(config.width, hidden, bias=config.bias)
        self.gate = nn.Linear(config.width, hidden, bias=config.bias) if config.gated else None
        self.down = nn.Linear(hidden, config.width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) in and out; each token by itself."""
        up = self.up(x)  # (..., hidden)
        hidden = F.gelu(up) if self.gate is None else F.silu(self.gate(x)) * up
        return self.dropout(self.down(hidden))  # (..., width)
