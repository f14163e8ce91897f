"""What an accelerator computes in a pass of one layer: products, attention, elementwise work.

A product of two matrices takes its FLOPs at the share of the peak that large products reach, and the time of its bytes,
2 for each number of the two and of the result, at the memory's bandwidth: Williams et al. 2009, "Roofline", with a sum
where they have the maximum, for the two overlap in part only. So a product's efficiency depends on its shape, and
cutting a matrix over tensor ranks lowers it.

Elementwise work is counted in bytes: what norms, residual sums, activation functions and transposes read and write, in
16 bits. Its backward reads the gradient as well, and counts twice. Attention that is not fused reads and writes its
scores, and multiplies the whole square; fused attention keeps none and multiplies the half that the mask leaves
(Dao et al. 2022, "FlashAttention": backward has five products for two of forward).

The host launches kernels one by one, so that a layer takes at least `host_s`. Where the accelerator's time comes near
to it, the two wait for each other now and then: the root of the sum of squares stands for that.
"""

import math
from typing import NamedTuple

from parallel_lab.model.config import GPTConfig
from parallel_lab.planner.clusters import Accelerator
from parallel_lab.planner.constants import Constants
from parallel_lab.planner.models import Matrix, attention_flops, core_widths, has_experts, matrices
from parallel_lab.planner.scheme import Scheme

NUMBER_BYTES = 2
OPTIMIZER_BYTES = (
    40  # of a parameter: gradient, weight, master copy and two moments are read, all but the first written
)
ALIGNED = 8  # numbers of 16 bits, 16 bytes: what tensor cores load at once (NVIDIA, "Matrix multiplication background")


class Layer(NamedTuple):
    """Seconds of one layer for one microbatch on one rank, without communication.

    Attributes:
        products_s: of forward; backward's two halves take as long each.
        attention_s: the core of attention, forward.
        attention_back_s: the same, backward.
        elementwise_s: forward; backward twice.
        scores_s: the part of `elementwise_s` that scores of unfused attention take.
        last_s: the part of `products_s` that its last product takes, which a recomputation need not repeat.
    """

    products_s: float
    attention_s: float
    attention_back_s: float
    elementwise_s: float
    scores_s: float
    last_s: float

    @property
    def forward_s(self) -> float:
        """Of the forward pass."""
        return self.products_s + self.attention_s + self.elementwise_s

    @property
    def input_s(self) -> float:
        """Of the gradient of its input."""
        return self.products_s + self.attention_back_s + 2 * self.elementwise_s

    @property
    def weight_s(self) -> float:
        """Of the gradient of its weights."""
        return self.products_s

    def again_s(self, scheme: Scheme) -> float:
        """What backward computes again."""
        if scheme.recompute == "selective":
            return self.attention_s + self.scores_s
        if scheme.recompute == "full":
            return self.forward_s - (self.last_s if scheme.states == "fsdp" else 0.0)
        return 0.0


def product_s(
    rows: float, inner: float, columns: float, flops_per_s: float, chip: Accelerator, constants: Constants
) -> float:
    """Seconds of a product of two matrices, rows x inner and inner x columns."""
    moved_bytes = NUMBER_BYTES * (rows * inner + inner * columns + rows * columns)
    computing_s = 2 * rows * inner * columns / (constants.product_share * flops_per_s)
    return computing_s + moved_bytes / (constants.memory_share * chip.bytes_per_s)


def layer(shape: GPTConfig, scheme: Scheme, chip: Accelerator, constants: Constants, place: int = 0) -> Layer:
    """What the layer at `place` takes."""
    tokens = scheme.microbatch * shape.seq / scheme.cp
    peak = chip.peak_flops_per_s(scheme.precision)
    if scheme.states == "deepspeed":
        peak /= constants.deepspeed_products
    each = [_matrix_s(one, tokens, peak, scheme, chip, constants) for one in matrices(shape, place)]
    forward_s, backward_s = _attention_s(shape, scheme, tokens, chip, constants)
    bandwidth = constants.memory_share * chip.bytes_per_s
    scores_s = _scores_bytes(shape, scheme, tokens) / bandwidth
    traffic = constants.unfused_traffic if scheme.states == "fsdp" else 1.0
    elementwise_s = traffic * elementwise_bytes(shape, scheme, tokens, place) / bandwidth + scores_s
    return Layer(sum(each), forward_s, backward_s, elementwise_s, scores_s, each[-1])


def _matrix_s(
    one: Matrix, tokens: float, peak: float, scheme: Scheme, chip: Accelerator, constants: Constants
) -> float:
    inputs, outputs = (
        one.inputs / (scheme.tp if one.cut == "row" else 1),
        one.outputs / (scheme.tp if one.cut == "column" else 1),
    )
    if one.copies == 1:
        return product_s(tokens, inputs, outputs, peak, chip, constants)
    here = one.copies / scheme.ep  # experts of this rank, each with its share of the group's tokens
    rows = tokens * scheme.ep * one.uses / one.copies
    return here * product_s(rows, inputs, outputs, peak, chip, constants)


def _attention_s(
    shape: GPTConfig, scheme: Scheme, tokens: float, chip: Accelerator, constants: Constants
) -> tuple[float, float]:
    peak = chip.peak_flops_per_s("bf16" if scheme.precision == "fp8" else scheme.precision)
    fused = scheme.attention == "fused"
    flops = tokens * attention_flops(shape, (shape.seq + 1) / 2 if fused else shape.seq) / scheme.tp
    if fused:
        return flops / (constants.attention_share * peak), 2.5 * flops / (constants.attention_back_share * peak)
    slower = constants.misaligned if core_widths(shape)[0] % ALIGNED else 1.0
    seconds = slower * flops / (constants.product_share * peak)
    return seconds, 2 * seconds


def elementwise_bytes(shape: GPTConfig, scheme: Scheme, tokens: float, place: int = 0) -> float:
    """What norms, sums, activation functions and transposes of a layer move in a forward pass, without scores.

    Per token, h wide: two norms read and write, 8 h; two residual sums read two and write one, 12 h, and with dropout a
    byte of mask each, 2 h; these the tensor ranks repeat unless they share sequences. Query, key and value are turned,
    4 (h + 2 h_kv); the activation function reads and writes, 4 bytes for each hidden number, and 6 where gated.
    """
    every = (20 + 2 * bool(shape.dropout)) * shape.width / (scheme.tp if scheme.sequence_parallel else 1)
    hidden = (6 if shape.gated else 4) * shape.hidden_width
    if has_experts(shape, place):
        hidden = hidden * shape.active_experts + 8 * shape.width * shape.active_experts  # and to and from the experts
    cut = 4 * (shape.heads * shape.head_width + 2 * shape.kv_width) + hidden
    return tokens * (every + cut / scheme.tp)


def _scores_bytes(shape: GPTConfig, scheme: Scheme, tokens: float) -> float:
    """Of attention that is not fused: the softmax reads and writes the scores, and dropout with its mask as well."""
    if scheme.attention == "fused":
        return 0.0
    return tokens * shape.heads * shape.seq * (9 if shape.dropout else 4) / scheme.tp


def head_s(shape: GPTConfig, scheme: Scheme, chip: Accelerator, constants: Constants) -> float:
    """Forward of the output layer with the loss; backward takes twice as long."""
    tokens, columns = scheme.microbatch * shape.seq / scheme.cp, shape.vocab / scheme.tp
    peak = chip.peak_flops_per_s("bf16" if scheme.precision == "fp8" else scheme.precision)
    loss_s = tokens * columns * constants.logit_bytes / 3 / (constants.memory_share * chip.bytes_per_s)
    return product_s(tokens, shape.width, columns, peak, chip, constants) + loss_s


def paced_s(accelerator_s: float, passes: int, all_passes: int, constants: Constants) -> float:
    """`accelerator_s` of `passes` of a layer's `all_passes`, no faster than the host launches them."""
    share = passes / all_passes
    return math.hypot(accelerator_s, share * constants.host_s)


def optimizer_s(parameters: float, chip: Accelerator, constants: Constants) -> float:
    """A step of Adam over so many parameters: it reads and writes."""
    return parameters * OPTIMIZER_BYTES / (constants.memory_share * chip.bytes_per_s)
