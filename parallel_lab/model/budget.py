"""What training or serving a large model costs, before anything runs: parameters, bytes, FLOPs, hours, dollars.

`Shape` is the `GPTConfig` of a decoder of the kind that is trained today (Llama, Mistral, Qwen): RMS norms, no biases,
a gated feed-forward part of three matrices (SwiGLU), key heads that several query heads share (grouped-query
attention), and optionally experts. `formulas` counts it as it counts the course's own GPT; what no rank here can build
is built on the meta device, which holds no numbers, and the tests hold both against published counts.

Letters: N parameters, D tokens of the whole training, F FLOP/s that a GPU reaches, G GPUs, h width, s tokens per
sequence, b sequences, a heads, L layers, V vocabulary.

Sources: Touvron et al. 2023, "Llama 2"; Dubey et al. 2024, "The Llama 3 herd of models", table 3; Shazeer 2020, "GLU
variants improve Transformer"; Ainslie et al. 2023, "GQA"; Jiang et al. 2024, "Mixtral of experts"; Korthikanti et al.
2022, "Reducing activation recomputation in large Transformer models", equations 1 to 6; Chowdhery et al. 2022, "PaLM",
section 4.1 and appendix B (MFU and HFU); the Megatron Core user guide, "Distributed optimizer" (16, 18, 20 bytes).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from parallel_lab.model import formulas
from parallel_lab.model.config import GPTConfig

Recompute = Literal["none", "selective", "full"]

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Shape(GPTConfig):
    """The shape of a decoder of Llama's kind, with or without experts: a `GPTConfig` with other defaults."""

    tied: bool = False
    bias: bool = False
    positions: Literal["learned", "rotary"] = "rotary"
    gated: bool = True
    norm: Literal["layer", "rms"] = "rms"

    @property
    def expert_parameters(self) -> int:
        """Gate, up and down of one feed-forward part: 3 h times hidden."""
        return formulas.feed_forward_parameters(self)

    @property
    def parameters(self) -> int:
        """N: all numbers that are trained."""
        return formulas.parameter_count(self)

    @property
    def active_parameters(self) -> int:
        """The parameters that one token uses; fewer than `parameters` where there are experts."""
        idle = self.layers * (self.experts - self.active_experts)
        return self.parameters - idle * self.expert_parameters

    @property
    def matmul_parameters(self) -> int:
        """The weights that a token is multiplied with: without the embedding, which is looked up, and the norms."""
        return formulas.matmul_parameters(self)

    def flops_per_token(self, seq: int, causal: bool = False) -> int:
        """FLOPs of forward and backward for one token of a sequence of `seq`: 6 N + 12 L h s, of what is multiplied.

        `causal` counts the pairs of tokens that see each other, s (s + 1) / 2 of s^2; papers mostly count the square.
        """
        return formulas.flops_per_token(replace(self, seq=seq), causal)

    def kv_bytes_per_token(self, number_bytes: float = 2) -> float:
        """Bytes of the cache of keys and values for one token of one sequence."""
        return 2 * self.layers * self.kv_width * number_bytes


LLAMA2_7B = Shape(vocab=32_000, seq=4096, layers=32, heads=32, width=4096, hidden=11_008)
LLAMA2_70B = replace(LLAMA2_7B, layers=80, heads=64, kv_heads=8, width=8192, hidden=28_672)
LLAMA3_8B = Shape(
    vocab=128_256, seq=8192, layers=32, heads=32, kv_heads=8, width=4096, hidden=14_336, rotary_base=500_000
)
LLAMA3_70B = replace(LLAMA3_8B, layers=80, heads=64, width=8192, hidden=28_672)
LLAMA3_405B = replace(LLAMA3_8B, layers=126, heads=128, width=16_384, hidden=53_248)
MIXTRAL_8X7B = replace(LLAMA3_8B, vocab=32_000, seq=32_768, rotary_base=1e6, experts=8, active_experts=2)
"""`seq` is the context of pre-training; Mixtral's is the one that its paper gives."""


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
    """Young's interval between checkpoints, sqrt(2 T_save M), with M the mean time between failures of the job."""
    return math.sqrt(2 * save_s * mtbf_s)


def some_of(n: int, probability: float) -> float:
    """The probability that at least one of `n` independent parts is hit: 1 - (1 - probability)^n."""
    return -math.expm1(n * math.log1p(-probability))
