"""One GPT: bytes in, a distribution over the next byte out.

The architecture is GPT-2's (Radford et al. 2019, section 2.3): learned positions, pre-norm blocks, GELU, and an output
layer that can share its weight with the token embedding (Press and Wolf 2017). Options make it Llama's (Touvron et al.
2023): grouped-query attention, rotary positions, SwiGLU and RMS norms; or Mixtral's, with experts. It is cut where
parallel training cuts:

- `GPT.layers()` is a chain of modules with one input and one output each, so that a pipeline stage is a slice of it;
- query, key and value are separate linears whose rows stand head by head, so that a contiguous slice of rows is a set
  of whole heads, and `Attention` takes the numbers of heads from what its linears return;
- `Attention.attend` is a plain function of (query, key, value), so that context parallelism puts its own in its place.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.model.config import GPTConfig
from parallel_lab.model.experts import MixtureOfExperts
from parallel_lab.model.feed_forward import FeedForward
from parallel_lab.model.rotary import rotate

INIT_STD = 0.02  # GPT-2's
NORM_EPSILON = 1e-5  # GPT-2's and Llama's


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention in which a token sees itself and what came before; all shapes are (batch, heads, seq, head_width).

    `key` and `value` may have fewer heads, each for as many neighboring query heads: the kernel reads them several
    times, and no copy of them is kept.
    """
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)


def new_norm(config: GPTConfig) -> nn.Module:
    """A layer norm or an RMS norm over the last dimension."""
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=NORM_EPSILON)
    return nn.LayerNorm(config.width, eps=NORM_EPSILON, bias=config.bias)


def new_feed_forward(config: GPTConfig) -> Any:
    """A `FeedForward`, or a `MixtureOfExperts` of several."""
    return MixtureOfExperts(config) if config.experts > 1 else FeedForward(config)


class Attention(nn.Module):
    """Causal self-attention by heads (Vaswani et al. 2017, section 3.2.2): (batch, seq, width) to the same.

    It gives `attend` as many key-value heads as `key` and `value` return, however many query heads there are.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width, bias = config.width, config.bias
        self.head_width = config.head_width
        self.rotary_base = config.rotary_base if config.positions == "rotary" else None
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, config.kv_width, bias=bias)
        self.value = nn.Linear(width, config.kv_width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(config.dropout)
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = causal_attention

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Each position sees itself and those before it; `positions` (seq,) as in `GPT.forward`, for rotary ones."""
        query, key, value = (self._heads(linear(x)) for linear in (self.query, self.key, self.value))
        if self.rotary_base is not None:
            query, key = rotate(query, key, positions, self.rotary_base)
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        mixed = self.attend(query, key, value)  # (batch, heads, seq, head_width)
        mixed = mixed.transpose(1, 2).flatten(2)  # (batch, seq, width)
        return self.dropout(self.out(mixed))  # (batch, seq, width)

    def _heads(self, x: Tensor) -> Tensor:
        # -1, not config.heads: a tensor-parallel rank's linears return its own heads only, and key-value heads differ.
        return x.unflatten(-1, (-1, self.head_width))  # (batch, seq, heads, head_width)


class Block(nn.Module):
    """Attention, then feed-forward, each added to its input and each normalizing what it reads (pre-norm)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = new_norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = new_norm(config)
        self.feed_forward = new_feed_forward(config)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """(batch, seq, width) in and out; `positions` (seq,) as in `GPT.forward`."""
        x = x + self.attention(self.attention_norm(x), **_where(positions))  # (batch, seq, width)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Embedding(nn.Module):
    """Tokens (batch, seq) to vectors (batch, seq, width): what the token is and, where learned, where it stands."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab, config.width)
        self.positions = nn.Embedding(config.seq, config.width) if config.positions == "learned" else None
        self.longest = config.seq
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """`positions` (seq,) says where these tokens stand in the whole sequence; by default 0, 1, 2, ...

        Raises:
            ValueError: the sequence is longer than the model's.
        """
        seq = tokens.shape[-1]
        if seq > self.longest:
            raise ValueError(f"a sequence of {seq} tokens, where this model has positions for {self.longest}")
        if self.positions is None:
            return self.dropout(self.tokens(tokens))  # (batch, seq, width)
        # A slice, not a lookup: the backward pass then needs no indices.
        where = self.positions.weight[:seq] if positions is None else self.positions(positions)  # (seq, width)
        return self.dropout(self.tokens(tokens) + where)  # (batch, seq, width)


class Head(nn.Module):
    """The last norm and the output layer: (batch, seq, width) to logits (batch, seq, vocab)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm = new_norm(config)
        self.linear = nn.Linear(config.width, config.vocab, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, width) to logits (batch, seq, vocab)."""
        return self.linear(self.norm(x))


class GPT(nn.Module):
    """Tokens (batch, seq), int64, to logits (batch, seq, vocab). The weights come from torch's random generator."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)
        if config.tied:
            self.head.linear.weight = self.embedding.tokens.weight
        self._initialize()

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """`positions` (seq,): where the tokens stand, for a rank that holds a part of the sequence only."""
        x = self.embedding(tokens, positions)  # (batch, seq, width)
        for block in self.blocks:
            x = block(x, **_where(positions))
        return self.head(x)  # (batch, seq, vocab)

    def layers(self) -> list[nn.Module]:
        """Embedding, blocks and head in order of use; the output of each is the input of the next."""
        return [self.embedding, *self.blocks, self.head]

    def _initialize(self) -> None:
        """GPT-2's: normal with a deviation of 0.02, zero biases, and less where a block adds to its input."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                # 2 * layers branches are added up, so each is shrunk to keep the sum's variance (GPT-2, section 2.3).
                adds = name.endswith(("attention.out.weight", ".down.weight"))
                nn.init.normal_(parameter, std=INIT_STD / (2 * self.config.layers) ** 0.5 if adds else INIT_STD)


def _where(positions: Tensor | None) -> dict[str, Tensor]:
    """Nothing where no positions are given: what stands in a block's or an attention's place may take `x` alone."""
    return {} if positions is None else {"positions": positions}


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy in nats over all targets; logits (..., classes), targets (...), int64."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())
