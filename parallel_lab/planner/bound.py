"""Times that no step goes below, and bytes: why a search may leave schemes out without pricing them.

Let a pipeline have p ranks, m microbatches, and a rank r whose passes take `busy(r)` in all. A rank runs one pass at a
time, so the passes end no earlier than busy(r), for each r.

For a *scheme*, `Step.least_s` knows more: which forward passes a rank waits for first, and, where the backward pass is
not split, which backward passes follow its last one. What comes after the passes (`Step.tail`) is exact, so

    step >= max over r of least(r) + tail

For a *family* of schemes, which differ in ZeRO, sharding, offload and schedule, a mean stands for the maximum: all
layers and the head take `whole` for one microbatch, however they are dealt out, so the mean of busy(r) is m whole / p.
The pass of a layer depends on the members' ZeRO only by what gathers and scatters of weights add, which is no less than
0. So step >= m whole / p for every member. Schedules without a barrier between steps add no wait to that, so
no wait is added for any.

Memory has a bound, too. Of the schemes of a family with one schedule, that with the most ZeRO over all data ranks holds
the least of weights, gradients and optimizer, and the same of activations: on each rank, none needs less but for what
is gathered, and the fullest rank no less than the first.

`tests/planner/test_bound.py` holds the three bounds against the planner's own steps and
memory.
"""

from functools import lru_cache

from parallel_lab.model.budget import Shape
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.constants import Constants
from parallel_lab.planner.estimate import Estimate
from parallel_lab.planner.exchange import Exchange
from parallel_lab.planner.memory import memory
from parallel_lab.planner.models import has_experts
from parallel_lab.planner.passes import Setting, head_passes, layer_passes
from parallel_lab.planner.scheme import Scheme

HAIR = 1 - 1e-9  # sums in another order differ in the last digits


def scheme_floor_s(one: Estimate) -> float:
    """A time that the step of `one` does not go below: its `Step.least_s`, and what comes after the passes."""
    return HAIR * (max(one.timing.least_s) + sum(one.timing.tail.values()))


def group_floor_s(plain: Estimate) -> float:
    """A time that no step of a group goes below; `plain` is the scheme of its schedule without ZeRO and offload.

    With ZeRO its passes gather and scatter more, and what comes after them takes no less than nothing.
    """
    return HAIR * max(plain.timing.least_s)


def family_floor_s(shape: Shape, cluster: Cluster, family: Scheme, batch: int, constants: Constants) -> float:
    """A time that the step of no member of a family goes below; `family` is its member without ZeRO."""
    key = (family.tp, family.cp, family.ep, family.microbatch, family.recompute, family.precision, family.states)
    whole_s = _whole_s(shape, cluster, constants, key, family.sequence_parallel)
    return HAIR * family.microbatches(batch) * whole_s / family.pp


def group_floor_bytes(shape: Shape, cluster: Cluster, leanest: Scheme, batch: int) -> float:
    """Bytes that no scheme needs less than on its fullest rank, of those that differ in ZeRO and offload alone.

    The first pipeline rank stands for the fullest.
    """
    held = memory(shape, leanest, batch, rank=0)
    return HAIR * (held.value - (held.get("gathered") or held.get("outside of layers")))


@lru_cache(maxsize=4096)
def _whole_s(shape: Shape, cluster: Cluster, constants: Constants, key: tuple, shared: bool) -> float:
    """Forward and backward of all layers and the head for one microbatch."""
    tp, cp, ep, microbatch, recompute, precision, states = key
    scheme = Scheme(
        dp=ep, tp=tp, cp=cp, ep=ep, microbatch=microbatch, recompute=recompute, precision=precision, states=states,
        sequence_parallel=shared,
    )  # fmt: skip
    setting = Setting(shape, scheme, Exchange(cluster, constants), overlap=True)
    kinds = {has_experts(shape, place): layer_passes(setting, place) for place in (0, shape.layers - 1)}
    each_s = {kind: sum(one.forward.values()) + sum(one.backward.values()) for kind, one in kinds.items()}
    return sum(each_s[has_experts(shape, place)] for place in range(shape.layers)) + sum(head_passes(setting))
