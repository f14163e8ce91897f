"""Times that no step goes below, and bytes, in a fraction of what a step costs to price: why a search may leave schemes out.

Let a pipeline have p ranks, m microbatches, and a rank r whose passes take `busy(r)` in all. A rank runs one pass at a
time, so the passes end no earlier than busy(r), for each r.

For a *scheme*, more is known. All stages of rank r are number r or higher, and the forward pass of a stage needs those
of all stages before it. So rank r begins nothing before stages 0 to r - 1 have done one forward pass each, and

    step >= max over r of [sum of forward(k), k < r] + busy(r)  + what comes after the passes

Where the backward pass is not split, the last pass of rank r is the backward of stage r, and those of stages r - 1 to 0
follow it: then their sum is added, too. What comes after the passes (`Step.tail`) is exact.

For a *family* of schemes, which differ in ZeRO, sharding, offload and schedule, a mean stands for the maximum: all
layers and the head take `whole` for one microbatch, however they are dealt out, so the mean of busy(r) is m whole / p.
The pass of a layer depends on the members' ZeRO only by what gathers and scatters of weights add, which is no less than
0. So step >= m whole / p for every member, and the mean of the sums before rank r adds (p - 1)/2 of the smallest stage.

Memory has a bound, too. Of the schemes of a family with one schedule, that with the most ZeRO over all data ranks holds
the least of weights, gradients and optimizer, and the same of activations; but for what it gathers, none needs less.

`tests/planner/test_bound.py` holds the three bounds against the planner's own steps and
memory.
"""

from functools import lru_cache
from itertools import accumulate

from parallel_lab.model.budget import Shape
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.constants import Constants
from parallel_lab.planner.estimate import Estimate
from parallel_lab.planner.exchange import Exchange
from parallel_lab.planner.models import has_experts
from parallel_lab.planner.passes import Setting, head_passes, layer_passes
from parallel_lab.planner.scheme import Scheme

UNSPLIT = ("gpipe", "1f1b", "interleaved")
HAIR = 1 - 1e-9  # sums in another order differ in the last digits


def scheme_floor_s(one: Estimate) -> float:
    """A time that the step of `one` does not go below."""
    timing, scheme = one.timing, one.scheme
    seconds, ranks = timing.seconds, range(scheme.pp)
    back = scheme.schedule in UNSPLIT
    each = [
        seconds.forward_s[k] + (seconds.input_s[k] + seconds.weight_s[k] if back else 0.0) + (1 + back) * seconds.message_s
        for k in ranks
    ]
    before = [0.0, *accumulate(each)]
    return HAIR * (max(before[r] + timing.busy_s[r] for r in ranks) + sum(timing.tail.values()))


def family_floor_s(
    shape: Shape, cluster: Cluster, family: Scheme, batch: int, constants: Constants, chunks: int = 4
) -> float:
    """A time that the step of no member of a family goes below.

    Args:
        shape: of the model.
        cluster: to run on.
        family: its member without ZeRO.
        batch: sequences of a step.
        constants: of the model of costs.
        chunks: the most stages that a rank of a member has.
    """
    key = (family.tp, family.cp, family.ep, family.microbatch, family.recompute, family.precision, family.states)
    forward_s, whole_s = _passes(shape, cluster, constants, key, family.sequence_parallel)
    smallest = shape.layers // (family.pp * chunks)
    waits_s = (family.pp - 1) / 2 * smallest * forward_s
    return HAIR * (family.microbatches(batch) * whole_s / family.pp + waits_s)


def group_floor_bytes(leanest: Estimate) -> float:
    """Bytes that no scheme needs less than on its fullest rank, of those that differ in ZeRO and offload alone."""
    held = leanest.memory
    return HAIR * (held.value - (held.get("gathered") or held.get("outside of layers")))


@lru_cache(maxsize=4096)
def _passes(shape: Shape, cluster: Cluster, constants: Constants, key: tuple, shared: bool) -> tuple[float, float]:
    """One microbatch: the least forward of a layer, and forward and backward of all layers and the head."""
    tp, cp, ep, microbatch, recompute, precision, states = key
    scheme = Scheme(
        dp=ep, tp=tp, cp=cp, ep=ep, microbatch=microbatch, recompute=recompute, precision=precision, states=states,
        sequence_parallel=shared,
    )  # fmt: skip
    setting = Setting(shape, scheme, Exchange(cluster, constants), overlap=True)
    kinds = {has_experts(shape, place): layer_passes(setting, place) for place in (0, shape.layers - 1)}
    forward_s = {kind: sum(one.forward.values()) for kind, one in kinds.items()}
    both_s = {kind: forward_s[kind] + sum(one.backward.values()) for kind, one in kinds.items()}
    layers_s = sum(both_s[has_experts(shape, place)] for place in range(shape.layers))
    return min(forward_s.values()), layers_s + sum(head_passes(setting))
