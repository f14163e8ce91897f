"""Mixed precision in closed form: bytes, errors of sums, how often a scale is too large, and the roofline's prediction.

u is the unit roundoff of a format, n the ranks whose numbers are added, N parameters; the height of an order is the
most additions in a row. The tests hold bytes against what is held and sent, and bounds against sums.

Sources: Higham 2002, "Accuracy and stability of numerical algorithms", lemma 3.1 and sections 4.2 and 4.3; Rajbhandari
et al. 2020, "ZeRO", section 3.1; Williams et al. 2009, "Roofline".
"""

from math import ceil, inf, log2
from typing import Literal, NamedTuple

import torch

from parallel_lab.precision.formats import Format, format_of
from parallel_lab.precision.policy import Policy
from parallel_lab.simulate.roofline import Roofline

Order = Literal["left to right", "ring", "pairwise", "tree", "kahan"]


class Held(NamedTuple):
    """Bytes per parameter from one step to the next, and those that live only within a step."""

    parameters: int
    gradients: int
    masters: int
    moments: int
    within_step: int

    @property
    def total(self) -> int:
        """What is held while gradients are there: 16 in float32, 16 mixed."""
        return self.parameters + self.gradients + self.masters + self.moments


def held_bytes(policy: Policy, *, masters: bool | None = None, moments: int = 2) -> Held:
    """Bytes per parameter of `MixedPrecision`, or of 16-bit parameters with `MasterWeights`.

    Within a step there are the copies that compute, where these are of another type, or the masters' gradients.

    Args:
        policy: the three types.
        masters: whether the optimizer has float32 copies; by default where parameters are narrower than that.
        moments: numbers that the optimizer keeps per parameter, 2 of Adam, 1 of momentum; in float32 beside masters,
            else in the parameters' type.
    """
    own, compute = policy.parameters.itemsize, policy.compute.itemsize
    masters = own < 4 if masters is None else masters
    moment = 4 if masters else own
    return Held(own, own, 4 * masters, moment * moments, (policy.compute != policy.parameters) * compute + 4 * masters)


def sent_bytes(parameters: int, n: int, policy: Policy) -> float:
    """What a rank sends to average the gradients: 2 (n-1)/n N times the bytes of the reduction, as a ring."""
    return 2 * (n - 1) / n * parameters * policy.reduction.itemsize


def unit_roundoff(dtype: torch.dtype | Format) -> float:
    """u: 2^-24 of float32, 2^-11 of float16, 2^-8 of bfloat16."""
    return format_of(dtype).unit_roundoff


def gamma(roundings: int, u: float) -> float:
    """What so many roundings in a row are off by at the most, relative: roundings u / (1 - roundings u).

    It is infinite from roundings u = 1 on.
    """
    return roundings * u / (1 - roundings * u) if roundings * u < 1 else inf


def height(order: Order, n: int) -> int:
    """The most additions that a number goes through, of one from each of n ranks.

    Raises:
        ValueError: of Kahan's sum, which is none of additions alone.
    """
    if order == "kahan":
        raise ValueError("a compensated sum is bounded by 2u and not by a height: see sum_bound")
    return n - 1 if order in ("left to right", "ring") else ceil(log2(n))


def sum_bound(order: Order, n: int, dtype: torch.dtype | Format) -> float:
    """|computed - sum| / sum |term| is at most this: gamma of the height, and 2u of Kahan's, to first order in u.

    Divided by |sum| / sum |term| it bounds the relative error: where numbers cancel, no order helps. No bound holds
    where a partial sum overflows.
    """
    u = unit_roundoff(dtype)
    return 2 * u if order == "kahan" else gamma(height(order, n), u)


def stalls_at(dtype: torch.dtype | Format, x: float) -> float:
    """Where a sum of equal positive numbers `x`, a power of two, stops to grow: x / u. 256 ones in bfloat16."""
    return x / unit_roundoff(dtype)


def lost_update(dtype: torch.dtype | Format) -> tuple[float, float]:
    """|update| / |weight| up to which an update always rounds to nothing, and from which it never does: u/2 and u.

    A weight at the upper end of the interval between two powers of two loses twice as much as one at the lower.
    """
    u = unit_roundoff(dtype)
    return u / 2, u


def skipped_share(interval: int = 2000) -> float:
    """The share of steps that a dynamic scale skips where the largest gradient stays: 1 in interval + 1.

    It grows by 2 after `interval` clean steps, overflows in the next one, and is halved to what it was.
    """
    return 1 / (interval + 1)


def product_s(gpu: Roofline, rows: int, inner: int, columns: int, number_bytes: int) -> float:
    """Seconds of a matrix product: 2 rows inner columns FLOPs, and the numbers of three matrices, each moved once."""
    moved_bytes = (rows * inner + inner * columns + rows * columns) * number_bytes
    return gpu.time_s(2 * rows * inner * columns, moved_bytes)


def product_speedup(wide: Roofline, narrow: Roofline, rows: int, inner: int, columns: int) -> float:
    """How many times as fast the roofline has a product in 16 bits as in 32: twice where memory is the limit.

    Args:
        wide: the unit that multiplies float32.
        narrow: the unit that multiplies 16 bits, on the same memory.
        rows: of the first factor.
        inner: its columns, and the rows of the second.
        columns: of the second factor.
    """
    return product_s(wide, rows, inner, columns, 4) / product_s(narrow, rows, inner, columns, 2)


def step_speedup(
    wide: Roofline, narrow: Roofline, *, flops: float, activation_bytes: float, state_bytes: float
) -> float:
    """The same of a training step: products that fill the unit, activations of half the bytes, states of as many.

    What the optimizer reads and writes is float32 with either policy, and halves nothing.

    Args:
        wide: as of `product_speedup`.
        narrow: likewise.
        flops: of all products.
        activation_bytes: what everything else reads and writes of activations, in float32.
        state_bytes: what the optimizer reads and writes.
    """
    both = state_bytes / wide.bytes_per_s
    in_wide = flops / wide.flops_per_s + activation_bytes / wide.bytes_per_s
    in_narrow = flops / narrow.flops_per_s + activation_bytes / 2 / narrow.bytes_per_s
    return (in_wide + both) / (in_narrow + both)
