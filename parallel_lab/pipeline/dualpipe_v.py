"""DualPipeV: forwards and backwards of two chunks in pairs, so that one computes while the other communicates.

DeepSeek-AI 2024, "DeepSeek-V3 Technical Report" (arXiv 2412.19437), section 3.2.1, which sends microbatches into the
pipeline from both ends and so holds every layer twice. Cut in half (Qi et al. 2025, the README of DualPipe) it is a V:
rank r holds stage r and stage 2p - 1 - r, the same ranks play both ends, and nothing is held twice.

In the steady state a rank runs a forward of one chunk and a whole backward of the other as a pair; an expert-parallel
model hides the all-to-all of each behind the computing of the other. The schedule gives the pairs; here the two run one
after the other. Backwards are split only in warm-up and cool-down, where the gradient of the weights, the pass W, fills
time.

Layers are sharded, two chunks per rank; nothing is replicated. With equal passes, T_F = T_I = T_W, and m at least 2p:

    idle in one step       (p - 1) / 2 of T_F with the pairs one after the other: on rank 0, in its own window too
    activations held       2p + 1 chunks, each half of a rank's layers, on every rank
    sent per microbatch    4 (p - 1) messages by all ranks; at the turn nothing is sent

The report counts (stages / 2 - 1) (T_pair + T_B - 3 T_W): its stages are the 2p chunks here, T_pair is the time of a
forward and a backward as one piece, and T_B that of both halves of a backward.
"""

from parallel_lab.pipeline.needs import numbered, require_positive, with_needs
from parallel_lab.plan import Op, Plan


def dualpipe_v(p: int, m: int) -> Plan:
    """The schedule of `m` microbatches through `2 * p` stages, stage i on rank i or, after the turn, 2p - 1 - i.

    Below 2p microbatches, which PyTorch and DeepSeek refuse, it is the schedule of 2p without those that are not there.
    """
    require_positive(p=p, m=m)
    return with_needs([_row(rank, p, m) for rank in range(p)])


def _row(rank: int, p: int, m: int) -> list[Op]:
    steady, below = max(m, 2 * p) - 2 * p, p - 1 - rank  # how many ranks are further down
    order = "f" * (2 * below) + "fF" * (rank + 1)  # capitals are passes of the second chunk, which is after the turn
    order += "IWF" * below
    order += "fBFb" * (steady + rank + 1)  # the pairs: a forward of one chunk, a backward of the other
    order += "BFb" * below
    last = "Bb" * (rank + 1)  # of these the second half is split, and so is what comes after
    halves = _half("Ii", last[rank + 1 :])
    weights = _half("Ww", halves + "i" * below)
    order += last[: rank + 1] + halves
    order += "".join(w + "i" for w in weights[:below]) + weights[below:]
    stages = 2 * p - 1 - rank, rank
    return numbered(rank, ((kind.upper(), stages[kind.islower()]) for kind in order), m)


def _half(kinds: str, passes: str) -> str:
    """The same chunks in the same order, with passes of `kinds`: of the second chunk, and of the first."""
    return "".join(kinds[kind.islower()] for kind in passes)
