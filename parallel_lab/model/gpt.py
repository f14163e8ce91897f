"""One GPT: bytes in, a distribution over the next byte out.

The architecture is GPT-2's (Radford et al. 2019, section 2.3): learned positions, pre-norm blocks, GELU, and an output
layer that can share its weight with the token embedding (Press and Wolf 2017). It is cut where parallel training cuts:

- `GPT.layers()` is a chain of modules with one input and one output each, so that a pipeline stage is a slice of it;
- query, key and value are separate linears whose rows stand head by head, so that a contiguous slice of rows is a set
  of whole heads, and `Attention` takes the number of heads from what its linears return;
- `Attention.attend` is a plain function of (query, key, value), so that context parallelism puts its own in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02  # GPT-2's


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a `GPT`.

    Attributes:
        vocab: how many different tokens; 256 for bytes.
        seq: the longest sequence, in tokens.
        layers: how many blocks.
        heads: attention heads a block; each is `width / heads` wide.
        width: the size of the vector a token is (h in the papers).
        mlp_ratio: the hidden layer of a block's feed-forward part is `mlp_ratio * width` wide.
        tied: whether the output layer uses the token embedding's weight.
        dropout: the share of values dropped after the embedding and after each half of a block. Attention
            probabilities are not dropped: the fused kernels that spare their memory would be lost on the CPU.
        bias: whether linears (other than the output layer, which never has one) and layer norms have a bias.

    Raises:
        ValueError: a size is below 1, heads do not divide width, or dropout is not in [0, 1).
    """

    vocab: int = 256
    seq: int = 64
    layers: int = 2
    heads: int = 4
    width: int = 64
    mlp_ratio: int = 4
    tied: bool = True
    dropout: float = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab", "seq", "layers", "heads", "width", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: expected at least 0 and less than 1")

    @property
    def head_width(self) -> int:
        """The width of one head."""
        return self.width // self.heads


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention in which a token sees itself and what came before; all shapes are (batch, heads, seq, head_width)."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2.2): (batch, seq, width) to the same."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width, bias = config.width, config.bias
        self.head_width = config.head_width
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(config.dropout)
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = causal_attention

    def forward(self, x: Tensor) -> Tensor:
        """Each position sees itself and those before it."""
        query, key, value = (self._heads(linear(x)) for linear in (self.query, self.key, self.value))
        mixed = self.attend(query, key, value)  # (batch, heads, seq, head_width)
        mixed = mixed.transpose(1, 2).flatten(2)  # (batch, seq, width)
        return self.dropout(self.out(mixed))  # (batch, seq, width)

    def _heads(self, x: Tensor) -> Tensor:
        # -1, not config.heads: a tensor-parallel rank's linears return its own heads only.
        return x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (batch, heads, seq, head_width)


class FeedForward(nn.Module):
    """Two linears with a GELU between, on each token alone: (batch, seq, width) to the same."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = config.mlp_ratio * config.width
        self.up = nn.Linear(config.width, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, config.width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, width) in and out; each position by itself."""
        hidden = F.gelu(self.up(x))  # (batch, seq, mlp_ratio * width)
        return self.dropout(self.down(hidden))  # (batch, seq, width)


class Block(nn.Module):
    """Attention, then feed-forward, each added to its input and each normalizing what it reads (pre-norm)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, width) in and out."""
        x = x + self.attention(self.attention_norm(x))  # (batch, seq, width)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Embedding(nn.Module):
    """Tokens (batch, seq) to vectors (batch, seq, width): what the token is plus where it stands."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab, config.width)
        self.positions = nn.Embedding(config.seq, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """`positions` (seq,) says where these tokens stand in the whole sequence; by default 0, 1, 2, ...

        Raises:
            ValueError: the sequence is longer than the model's.
        """
        seq, longest = tokens.shape[-1], self.positions.num_embeddings
        if seq > longest:
            raise ValueError(f"a sequence of {seq} tokens, where this model has positions for {longest}")
        # A slice, not a lookup: the backward pass then needs no indices.
        where = self.positions.weight[:seq] if positions is None else self.positions(positions)  # (seq, width)
        return self.dropout(self.tokens(tokens) + where)  # (batch, seq, width)


class Head(nn.Module):
    """The last norm and the output layer: (batch, seq, width) to logits (batch, seq, vocab)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, bias=config.bias)
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
            x = block(x)
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
                adds = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
                nn.init.normal_(parameter, std=INIT_STD / (2 * self.config.layers) ** 0.5 if adds else INIT_STD)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy in nats over all targets; logits (..., classes), targets (...), int64."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())
