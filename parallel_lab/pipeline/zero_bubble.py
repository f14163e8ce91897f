"""Zero bubble, H1 and H2: the gradient of the weights waits, and fills what would be idle.

Qi et al. 2024, "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 2.

A backward is two products, and only one of them is urgent: I, the gradient of the input, for which the stage before
waits; W, the gradient of the weights, is needed by nobody before the optimizer's step. So I goes as soon as it can, and
W moves to where a stage would stand idle. Rank r lags r W behind, so that on every rank the same number of microbatches
is under way; H2 runs twice as many forwards ahead and lags twice as far, which costs twice the memory.

Layers are sharded over the stages; nothing is replicated. With equal stages, T_F, T_I and T_W the seconds of the
passes, S_B the bytes of a microbatch's activations and S_W those that W needs (all of them, where I frees nothing):

    idle in one step       H1 (p-1) max(T_F, T_I, T_F+T_I-T_W) from m = p on, where 1F1B has (p-1) (T_F+T_I+T_W);
                           H2, from m = 2p-1 on, (p-1) max(T_F, T_I-T_F, T_F+T_I-2 T_W): with equal passes no less, for
                           the last rank begins late
    own window             idle between a rank's first and last pass, which is what counts in a row of steps without
                           barrier: H1 (p-1) max(T_I, T_F+T_I-T_W), H2 (p-1) max(0, T_I-T_F, T_F+T_I-2 T_W), none
                           with equal passes
    activations held       on rank r, H1 (p-r) S_B + r S_W, H2 (2p-2r-1) S_B + 2r S_W
    sent per microbatch    one activation to the next stage, one gradient to the stage before, as in 1F1B
"""

from parallel_lab.pipeline.needs import numbered, require_positive, with_needs
from parallel_lab.plan import Op, Plan


def zb_h1(p: int, m: int) -> Plan:
    """The schedule H1 of `m` microbatches through `p` stages, stage i on rank i: the memory of 1F1B, a third idle."""
    require_positive(p=p, m=m)
    return with_needs([_row(rank, p, m, 1) for rank in range(p)])


def zb_h2(p: int, m: int) -> Plan:
    """The schedule H2 of `m` microbatches through `p` stages, stage i on rank i: no waits between equal passes."""
    require_positive(p=p, m=m)
    return with_needs([_row(rank, p, m, 2) for rank in range(p)])


def _row(rank: int, p: int, m: int, laps: int) -> list[Op]:
    ahead, lag = min(laps * (p - 1 - rank), m), laps * rank
    order = "F" * ahead  # warm-up: for the way to the last stage, and in H2 for the way back too
    for mb in range(m):
        order += "F" * (ahead + mb < m) + "I" + "W" * (mb >= lag)
    order += "W" * lag  # what fills the cool-down
    return numbered(rank, ((kind, rank) for kind in order), m)
