"""What a layer keeps for its backward pass on one rank, in bytes of one microbatch, and how many microbatches are held.

With two bytes a number, as many key-value heads as heads, GELU, a hidden width of 4h and dropout, this is Korthikanti's
account: 34 s b h + 5 a s^2 b for one rank, 10 + 24/tp and 5/tp over tp tensor ranks, (34 + 5 a s/h)/tp with sequence
parallelism, 2 s b h where the layer is computed again (equations 1 to 6). By part, in numbers of a token:

    norms                 2 h: their inputs                                 over tp with sequence parallelism
    inputs                2 h: what attention and feed-forward part take    over tp with sequence parallelism (gathered
                          again in the backward pass)
    query, key, value     a d + 2 a_kv d, and a d that attention gives      over tp; key-value heads by tp or whole
    hidden                2 hidden widths around a GELU; 3 with a fused gate, 4 with one of three kernels   over tp
    masks                 2 h bytes, with dropout                           over tp with sequence parallelism
    scores                a s numbers for each token, and with dropout      over tp; a fused kernel keeps 4 a bytes, a
                          a second copy and a mask of a byte                log-sum-exp, in their place

A mixture keeps for each of K experts of a token its input, its hidden numbers and its output; loads are taken as even.

Sources: Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models", section 4; Dao et al.
2022, "FlashAttention"; held against the public goldens of Megatron-LM (tests/planner/test_goldens.py).
"""

from functools import cache
from typing import NamedTuple

from parallel_lab.model.config import GPTConfig
from parallel_lab.pipeline.formulas import peak_activations
from parallel_lab.planner.models import Latent, core_widths, has_experts
from parallel_lab.planner.scheme import Scheme

NAMES = {"1f1b": "one_f_one_b"}  # where the planner's word for a schedule is not the function's
LOG_SUM_EXP_BYTES = 4


class Kept(NamedTuple):
    """Bytes that one layer keeps of one microbatch, by part."""

    norms: float
    inputs: float
    attention: float
    hidden: float
    masks: float
    scores: float

    @property
    def all(self) -> float:
        """Their sum."""
        return sum(self)


def number_bytes(scheme: Scheme) -> int:
    """Bytes of an activation; fp8 casts what products take, and keeps the rest in 16 bits."""
    return 4 if scheme.precision == "fp32" else 2


def tokens(shape: GPTConfig, scheme: Scheme) -> float:
    """Of one microbatch on one rank."""
    return scheme.microbatch * shape.seq / scheme.cp


def shared(scheme: Scheme) -> int:
    """Over how many ranks the activations between the cut parts are spread."""
    return scheme.tp if scheme.sequence_parallel else 1


@cache
def layer_bytes(shape: GPTConfig, scheme: Scheme, layer: int) -> Kept:
    """What one layer keeps where nothing, or with `selective` the core of attention, is computed again."""
    each, spread, e = tokens(shape, scheme), shared(scheme), number_bytes(scheme)
    inputs, hidden = _feed_forward(shape, scheme, layer)
    turned = e * shape.seq / scheme.cp * shape.head_width if own(scheme) and shape.positions == "rotary" else 0.0
    return Kept(
        norms=2 * norm_bytes(shape, scheme),
        inputs=e * each * (shape.width / (1 if own(scheme) else spread) + inputs),
        attention=e * each * _attention(shape, scheme) + turned,
        hidden=e * each * hidden,
        masks=2 * each * shape.width / spread * mask_bytes(scheme) if shape.dropout else 0.0,
        scores=_scores(shape, scheme),
    )


def own(scheme: Scheme) -> bool:
    """Whether this course's executor runs it, in float32 on CPUs: what autograd keeps there is counted to the byte.

    Norms then keep what they note of each token, an RMS norm also its result; rotary positions keep their turns; and of
    sequence parallelism the gathered inputs are kept. `model.formulas` and `tensor_parallel.formulas` say the same.
    """
    return scheme.states == "float32"


def norm_bytes(shape: GPTConfig, scheme: Scheme) -> float:
    """What a norm keeps: its input."""
    here = tokens(shape, scheme) / shared(scheme) * number_bytes(scheme)
    if not own(scheme):
        return here * shape.width
    return here * (shape.width + 2 if shape.norm == "layer" else 2 * shape.width + 1)


def mask_bytes(scheme: Scheme) -> int:
    """Bytes of a number of a dropout mask: one, but for the CPU's."""
    return number_bytes(scheme) if own(scheme) and shared(scheme) == 1 else 1


def place_bytes(shape: GPTConfig, scheme: Scheme, microbatches: int, flight: float, first: bool, held: int) -> float:
    """What the executor's embedding and loss keep of tokens and targets: their places in a rank's part of the table.

    One rank alone keeps the tokens themselves, views of the whole batch, and of each loss how many targets count.
    `held` losses wait; 0 where the rank has no head.
    """
    batch = 8 * microbatches * scheme.microbatch * scheme.dp * shape.seq
    if not own(scheme):
        return 0.0
    if scheme.tp == 1:
        return first * batch + (batch if held else 0) + 4 * held
    return tokens(shape, scheme) * (9 * first * flight + 10 * held)


def input_bytes(shape: GPTConfig, scheme: Scheme) -> float:
    """The input of a layer, all that is kept where it is computed again; and what a message carries."""
    return number_bytes(scheme) * tokens(shape, scheme) * shape.width / shared(scheme)


def _attention(shape: GPTConfig, scheme: Scheme) -> float:
    """Query, key, value and what attention gives, in numbers of a token."""
    query, value = core_widths(shape)
    latent: Latent | None = getattr(shape, "latent", None)
    heads = shape.heads / scheme.tp
    if latent:  # both latents before and after their norms; keys and values are whole heads once they are made
        return heads * (2 * query + 2 * value) + 2 * (latent.query + latent.key_value) + latent.rotary
    kv_heads = max(1, (shape.kv_heads or shape.heads) / scheme.tp)
    normed = (heads + kv_heads) * query if getattr(shape, "qk_norm", False) else 0.0  # and what the norms were given
    return heads * (query + value) + kv_heads * (query + value) + normed


def _feed_forward(shape: GPTConfig, scheme: Scheme, layer: int) -> tuple[float, float]:
    """Its inputs and its hidden numbers, of a token."""
    copies = (3 if scheme.states in ("megatron", "deepspeed") else 4) if shape.gated else 2
    spread = 1 if own(scheme) else shared(scheme)
    if not has_experts(shape, layer):
        hidden = (getattr(shape, "dense_hidden", None) if shape.experts > 1 else None) or shape.hidden_width
        return shape.width / spread, copies * hidden / scheme.tp
    chosen = shape.active_experts
    routed = shape.width / spread + 2 * chosen * shape.width / spread  # the mixture's input; those of experts; outputs
    return routed, copies * (chosen * shape.hidden_width + getattr(shape, "shared_hidden", 0)) / scheme.tp


def _scores(shape: GPTConfig, scheme: Scheme) -> float:
    heads, each, e = shape.heads / scheme.tp, tokens(shape, scheme), number_bytes(scheme)
    if scheme.attention == "fused" or scheme.recompute == "selective":
        return LOG_SUM_EXP_BYTES * heads * each if scheme.attention == "fused" else 0.0
    return heads * each * shape.seq * (2 * e + 1 if shape.dropout else e)


def under_way(scheme: Scheme, rank: int, microbatches: int) -> tuple[float, ...]:
    """Of how many microbatches a pipeline rank holds the activations at once, for each of its stages.

    Where stages are unequal it is the moment of the first backward pass that counts, when the last has most to hold.
    Of a number of microbatches that pp does not divide, Megatron's interleaved schedule takes larger groups than pp.
    """
    if scheme.pp == 1:
        return (1.0,)
    p, v, m = scheme.pp, scheme.stages_each, microbatches
    if scheme.schedule != "interleaved":
        return (peak_activations(NAMES.get(scheme.schedule, scheme.schedule), p, m, rank, v=v),) * v
    group = next((g for g in range(p, m + 1) if m % g == 0), m)
    forwards = min(2 * (p - 1 - rank) + (v - 1) * group + 1, v * m)
    rounds, rest = divmod(forwards, v * group)
    return tuple(float(rounds * group + min(group, max(0, rest - stage * group))) for stage in range(v))
