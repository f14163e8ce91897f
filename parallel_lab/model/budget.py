"""What training or serving a large model costs, before anything runs: parameters, bytes, FLOPs, hours, dollars.

`Shape` counts a decoder of the kind that is trained today (Llama, Mistral, Qwen): RMS norms, no biases, a gated
feed-forward part of three matrices (SwiGLU), key heads that several query heads share (grouped-query attention), and
optionally experts. `formulas` counts the course's own GPT to the byte; these are the formulas for what no rank here can
build, and the tests hold them against published counts.

Letters: N parameters, D tokens of the whole training, F FLOP/s that a GPU reaches, G GPUs, h width, s tokens per
sequence, b sequences, a heads, L layers, V vocabulary.

Sources: Touvron et al. 2023, "Llama 2"; Dubey et al. 2024, "The Llama 3 herd of models", table 3; Shazeer 2020, "GLU
variants improve Transformer"; Ainslie et al. 2023, "GQA"; Jiang et al. 2024, "Mixtral of experts"; Korthikanti et al.
2022, "Reducing activation recomputation in large Transformer models", equations 1 to 6; Chowdhery et al. 2022, "PaLM",
section 4.1 and appendix B (MFU and HFU); the Megatron Core user guide, "Distributed optimizer" (16, 18, 20 bytes).
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Recompute = Literal["none", "selective", "full"]

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder of Llama's kind, with or without experts.

    Attributes:
        layers, width, heads: L, h and a; a head is `width / heads` wide.
        hidden: the width of the feed-forward part, or of one expert.
        vocab: V, the tokens of the vocabulary.
        kv_heads: key and value heads; fewer than `heads` in grouped-query attention. By default as many.
        experts, active_experts: feed-forward parts per layer, and how many of them a token goes through.
        tied: whether the output layer uses the embedding's weight.

    Raises:
        ValueError: heads do not divide the width, key heads do not divide the heads, or too many experts are active.
    """

    layers: int
    width: int
    heads: int
    hidden: int
    vocab: int
    kv_heads: int = 0
    experts: int = 1
    active_experts: int = 1
    tied: bool = False

    def __post_init__(self) -> None:
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError(f"a width of {self.width}, {self.heads} heads and {self.kv_heads} key heads do not divide")
        if not 1 <= self.active_experts <= self.experts:
            raise ValueError(f"{self.active_experts} active experts of {self.experts}")

    @property
    def kv_width(self) -> int:
        """The width of all key heads together, and of all value heads."""
        return self.width // self.heads * self.kv_heads

    @property
    def attention_parameters(self) -> int:
        """Query and output h x h each, key and value h x kv_width each, of one layer."""
        return 2 * self.width * (self.width + self.kv_width)

    @property
    def expert_parameters(self) -> int:
        """Gate, up and down of one feed-forward part: 3 h x hidden."""
        return 3 * self.width * self.hidden

    @property
    def parameters(self) -> int:
        """N: all numbers that are trained."""
        return self._count(self.experts, tables=1 if self.tied else 2)

    @property
    def active_parameters(self) -> int:
        """The parameters that one token uses; fewer than `parameters` where there are experts."""
        return self._count(self.active_experts, tables=1 if self.tied else 2)

    @property
    def matmul_parameters(self) -> int:
        """The weights that a token is multiplied with: without the embedding, which is looked up, and the norms."""
        router = self.width * self.experts if self.experts > 1 else 0
        per_layer = self.attention_parameters + self.active_experts * self.expert_parameters + router
        return self.layers * per_layer + self.vocab * self.width

    def flops_per_token(self, seq: int, causal: bool = False) -> float:
        """FLOPs of forward and backward for one token of a sequence of `seq`: 6 N + 12 L h s, of what is multiplied.

        `causal` counts the pairs of tokens that see each other, s (s + 1) / 2 of s^2; papers mostly count the square.
        """
        seen = (seq + 1) / 2 if causal else seq
        return 6 * self.matmul_parameters + 12 * self.layers * self.width * seen

    def kv_bytes_per_token(self, number_bytes: float = 2) -> float:
        """Bytes of the cache of keys and values for one token of one sequence."""
        return 2 * self.layers * self.kv_width * number_bytes

    def _count(self, experts: int, tables: int) -> int:
        router = self.width * self.experts if self.experts > 1 else 0
        per_layer = self.attention_parameters + experts * self.expert_parameters + router + 2 * self.width
        return self.layers * per_layer + self.width + tables * self.vocab * self.width


LLAMA2_7B = Shape(layers=32, width=4096, heads=32, hidden=11_008, vocab=32_000)
LLAMA2_70B = Shape(layers=80, width=8192, heads=64, hidden=28_672, vocab=32_000, kv_heads=8)
LLAMA3_8B = Shape(layers=32, width=4096, heads=32, hidden=14_336, vocab=128_256, kv_heads=8)
LLAMA3_70B = Shape(layers=80, width=8192, heads=64, hidden=28_672, vocab=128_256, kv_heads=8)
LLAMA3_405B = Shape(layers=126, width=16_384, heads=128, hidden=53_248, vocab=128_256, kv_heads=8)
MIXTRAL_8X7B = Shape(
    layers=32, width=4096, heads=32, hidden=14_336, vocab=32_000, kv_heads=8, experts=8, active_experts=2
)


class Layout(NamedTuple):
    """Bytes per parameter under Adam."""

    weight: int  # the copy that computes
    gradient: int
    optimizer: int  # what only the optimizer reads: moments, and a master copy where there is one


LAYOUTS = {
    "float32": Layout(4, 4, 8),
    "mixed": Layout(2, 2, 12),  # DeepSpeed: gradients in 16 bits
    "main gradients": Layout(2, 4, 12),  # Megatron with bfloat16: gradients are summed in float32
    "copied gradients": Layout(2, 2, 16),  # Megatron with float16: the optimizer has a float32 copy of them
}
"""16, 16, 18 and 20 bytes. FSDP2 shards "float32", and computes with gathered copies of 2 bytes."""


def layer_activation_bytes(width: int, heads: int, seq: int, batch: int = 1, recompute: Recompute = "none") -> int:
    """Bytes that one layer keeps for its backward pass, in 16 bits (Korthikanti et al. 2022, equations 1 and 6).

    34 s b h + 5 a s^2 b without recomputation and without a fused attention; 34 s b h where the core of attention is
    computed again (or fused: FlashAttention keeps no scores); 2 s b h, the layer's input, where all of it is.
    Their layer has a feed-forward part of 4h with GELU and dropout; a gated one differs, up to a fifth more unfused.
    """
    linear = seq * batch * width
    if recompute == "full":
        return 2 * linear
    return 34 * linear + (5 * heads * seq**2 * batch if recompute == "none" else 0)


def recomputed_flops(model_flops: float, attention_flops: float, recompute: Recompute) -> float:
    """What the hardware computes for `model_flops` of forward and backward, of which `attention_flops` are attention's.

    Full recomputation does at most one more forward pass, a third more (PyTorch's non-reentrant variant stops early);
    selective does the forward pass of attention's core. Korthikanti et al. count its backward pass again as well: their
    hardware and model FLOPs stand as 1 + s/6h, three times what this function adds.
    """
    again = {"none": 0.0, "selective": attention_flops / 3, "full": model_flops / 3}
    return model_flops + again[recompute]


def training_flops(parameters: float, tokens: float) -> float:
    """6 N D, without attention; for a mixture of experts, N is the active parameters."""
    return 6 * parameters * tokens


def gpu_hours(flops: float, peak_flops_per_s: float, mfu: float) -> float:
    """Hours of one GPU for so many FLOPs of the model, of whose peak it reaches the share `mfu`."""
    return flops / (peak_flops_per_s * mfu) / SECONDS_PER_HOUR


def training_days(flops: float, gpus: int, peak_flops_per_s: float, mfu: float, goodput: float = 1.0) -> float:
    """Days of the calendar on `gpus`; `goodput` is the share of them that is not lost to failures and restarts."""
    return flops / (gpus * peak_flops_per_s * mfu * goodput) / SECONDS_PER_DAY


def utilization(flops_per_token: float, tokens_per_s: float, gpus: int, peak_flops_per_s: float) -> float:
    """Model FLOPs utilization (MFU); with the FLOPs that the hardware does, recomputation included, it is HFU."""
    return flops_per_token * tokens_per_s / (gpus * peak_flops_per_s)


def implied_mfu(flops: float, hours: float, peak_flops_per_s: float) -> float:
    """The utilization that published GPU hours imply, restarts and idle time included."""
    return flops / (hours * SECONDS_PER_HOUR * peak_flops_per_s)


def save_interval_s(save_s: float, mtbf_s: float) -> float:
    """Young's interval between checkpoints, sqrt(2 x time to save x mean time between failures of the job)."""
    return math.sqrt(2 * save_s * mtbf_s)


def some_of(n: int, probability: float) -> float:
    """The probability that at least one of `n` independent parts is hit: 1 - (1 - p)^n."""
    return -math.expm1(n * math.log1p(-probability))
