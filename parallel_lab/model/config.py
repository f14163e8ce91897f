"""The shape of a `GPT`, by itself: `formulas` and `budget` count from it without loading torch.

Sources of the options: Ainslie et al. 2023, "GQA"; Su et al. 2021, "RoFormer"; Shazeer 2020, "GLU variants improve
Transformer"; Zhang and Sennrich 2019, "Root mean square layer normalization"; Llama 2 and 3 have all four. Jiang et al.
2024, "Mixtral of experts".
"""

from dataclasses import dataclass
from typing import Literal


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
        kv_heads: key and value heads; fewer than `heads` in grouped-query attention (Ainslie et al. 2023), where
            `heads / kv_heads` neighboring query heads share one. None: as many as `heads`.
        hidden: the width of the hidden layer, where it is no multiple of `width`. None: `mlp_ratio * width`.
        positions: "learned", a vector that the embedding adds, or "rotary", a turn of query and key in each block.
        gated: whether the feed-forward part is SwiGLU (Shazeer 2020), of three matrices.
        norm: "layer", or "rms" (Zhang and Sennrich 2019), which has no mean and no bias.
        rotary_base: the slowest of the rotary turns takes about `2 pi rotary_base` tokens.
        experts: feed-forward parts a block; with more than one a router chooses among them.
        active_experts: how many of them a token goes through.

    Raises:
        ValueError: a size is below 1, heads do not divide width, key-value heads do not divide heads, a rotary head's
            width is odd, dropout is not in [0, 1), more experts are active than there are, or `positions` or `norm` is
            unknown.
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
    kv_heads: int | None = None
    hidden: int | None = None
    positions: Literal["learned", "rotary"] = "learned"
    gated: bool = False
    norm: Literal["layer", "rms"] = "layer"
    rotary_base: float = 10_000.0
    experts: int = 1
    active_experts: int = 1

    def __post_init__(self) -> None:
        sizes = ("vocab", "seq", "layers", "heads", "width", "mlp_ratio", "kv_heads", "hidden", "rotary_base")
        for name in (*sizes, "experts", "active_experts"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}: expected at least 1")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        if self.heads % (self.kv_heads or 1):
            raise ValueError(f"{self.heads} heads do not divide among {self.kv_heads} key-value heads")
        if self.active_experts > self.experts:
            raise ValueError(f"{self.active_experts} active experts of {self.experts}: a token goes through each once")
        for name, known in (("positions", ("learned", "rotary")), ("norm", ("layer", "rms"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: expected {' or '.join(known)}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"a head is {self.head_width} wide: rotary positions turn pairs and need an even width")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: expected at least 0 and less than 1")

    @property
    def head_width(self) -> int:
        """The width of one head."""
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        """The width of all key heads together, and of all value heads."""
        return self.head_width * (self.kv_heads or self.heads)

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward part's hidden layer."""
        return self.hidden or self.mlp_ratio * self.width
