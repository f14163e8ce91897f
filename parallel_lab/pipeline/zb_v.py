"""ZB-V: zero bubble in the memory of 1F1B, with two chunks a rank laid out as a V.

Qi et al. 2024, "Pipeline Parallelism with Controllable Memory" (arXiv 2405.15362), section 3; the schedule is the one
that "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 6, calls ZB-V.

The model is cut into 2p stages that go down the ranks and up again: rank r holds stage r and stage 2p - 1 - r. So the
last stage lives on the first rank, whose backward begins as soon as its own second chunk is through, and every rank
holds each microbatch for the same time: early in one chunk, late in the other. Backwards are split, and W fills the
warm-up and the cool-down.

Layers are sharded, two chunks per rank; nothing is replicated. Where T_F = T_I = T_W it is balanced:

    idle in one step       (p - 1) / 2 of T_F, for m at least 2p - 1: the last rank begins (p - 1) chunks late
    own window             no idle between a rank's first and last pass
    activations held       2p chunks, each half of a rank's layers, on every rank: what rank 0 holds in 1F1B
    sent per microbatch    4 (p - 1) messages by all ranks, twice those of 1F1B; at the turn nothing is sent

Where these times differ it leaves these values; simulate it then.
"""

from parallel_lab.pipeline.needs import numbered, require_positive, with_needs
from parallel_lab.plan import Op, Plan


def zb_v(p: int, m: int) -> Plan:
    """The schedule of `m` microbatches through `2 * p` stages, stage i on rank i or, after the turn, 2p - 1 - i.

    Below 2p - 1 microbatches it is the schedule of 2p - 1, without those that are not there.
    """
    require_positive(p=p, m=m)
    return with_needs([_row(rank, p, m) for rank in range(p)])


def _row(rank: int, p: int, m: int) -> list[Op]:
    steady, r = max(m, 2 * p - 1) - (2 * p - 1), rank
    order = "f" * (2 * (p - r) - 1)  # the first chunk, until the first microbatch has come down and up again
    order += "Ff" * r + "FIW" * (p - r)  # capitals are passes of the second chunk, which is after the turn
    order += "fiwFIW" * (steady + r)
    order += "iwFIW" * (p - 1 - r)  # no forward of the first chunk is left
    order += "iI" * r + "iw" * (p - r) + "wW" * r  # nor of the second
    stages = 2 * p - 1 - r, r
    return numbered(rank, ((kind.upper(), stages[kind.islower()]) for kind in order), m)
