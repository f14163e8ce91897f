"""Interleaved 1F1B: several small stages per rank, so that the pipeline fills sooner.

Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", section 2.2.2.

The model is cut into p*v stages (the paper's model chunks), dealt out like cards: stage i lives on rank i mod p, so a
microbatch goes v times round the ranks. Filling the pipeline still takes p - 1 steps, but a step is now a chunk, 1/v as
long, so the bubble shrinks by v. The price is v times as many messages and somewhat more activations.

Layers are sharded, v chunks per rank; nothing is replicated. With equal chunks:

    bubble                 (p - 1) / (v*m + p - 1) of the time
    activations held       min(2*(p - 1 - r) + (v - 1)*p + 1, v*m) chunks on rank r, each 1/v of a rank's layers;
                           on rank 0 that is 1 + (p - 1)/(p*v) times what 1F1B holds, once m is at least 2p
                           (Korthikanti et al. 2022, "Reducing Activation Recomputation")
    sent per microbatch    2 (p*v - 1) messages by all ranks, an activation and a gradient over each cut: 2v by each
                           rank, but 2v - 1 by the first and by the last, where the model begins and ends
"""

from parallel_lab.pipeline.needs import require_positive, with_needs
from parallel_lab.plan import Op, Plan


def interleaved(p: int, m: int, v: int) -> Plan:
    """The schedule of `m` microbatches through `p * v` stages, stage i on rank i mod p.

    Microbatches go in rounds of p: a rank takes a round through its first chunk, then through its second, and so on,
    and begins the next round.

    Raises:
        ValueError: p, m or v is below 1, or p does not divide m, which would leave a round half full.
    """
    require_positive(p=p, m=m, v=v)
    if m % p:
        raise ValueError(f"interleaving takes microbatches in rounds of p: m = {m} is no multiple of p = {p}")
    return with_needs([_row(rank, p, m, v) for rank in range(p)])


def _row(rank: int, p: int, m: int, v: int) -> list[Op]:
    forwards = [Op(rank, "F", chunk * p + rank, mb) for mb, chunk in _turns(p, m, v)]
    backwards = [Op(rank, "B", (v - 1 - chunk) * p + rank, mb) for mb, chunk in _turns(p, m, v)]
    # One round through all chunks but the last, and two forwards for each rank further on: one for the way there, one
    # for the way back of the first backward.
    ahead = min(2 * (p - 1 - rank) + (v - 1) * p, m * v)
    row = forwards[:ahead]  # warm-up
    for forward, backward in zip(forwards[ahead:], backwards, strict=False):  # steady state
        row += [forward, backward]
    return row + backwards[m * v - ahead :]  # cool-down


def _turns(p: int, m: int, v: int) -> list[tuple[int, int]]:
    """Microbatch and chunk of each of a rank's m*v forwards, in order."""
    return [(first + k, chunk) for first in range(0, m, p) for chunk in range(v) for k in range(p)]
