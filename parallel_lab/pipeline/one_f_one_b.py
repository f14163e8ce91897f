"""1F1B: a backward as soon as there is one, so that few activations are held.

Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", section 2.2.1
(PipeDream-Flush; Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN Training"); the alternation is that of
PipeDream (Narayanan et al. 2019), here with a flush at the end of each batch.

Stage i runs just enough forwards ahead (p - 1 - i) for the last stage to begin; then each stage alternates one forward
and one backward; then it drains the backwards that are left. A backward frees the activations of its microbatch, so a
stage holds as many as it ran ahead and one more, however many microbatches there are. The bubble is that of GPipe: what
1F1B saves is memory, which pays for a larger m, and that makes the bubble smaller.

Layers are sharded over the stages; nothing is replicated. With equal stages:

    bubble                 (p - 1) / (m + p - 1) of the time
    activations held       min(p - i, m) microbatches on stage i, counted from 0
    sent per microbatch    one activation to the next stage, one gradient to the stage before
"""

from parallel_lab.pipeline.needs import require_positive, with_needs
from parallel_lab.plan import Op, Plan


def one_f_one_b(p: int, m: int) -> Plan:
    """The schedule of `m` microbatches through `p` stages, stage i on rank i."""
    require_positive(p=p, m=m)
    return with_needs([_row(stage, p, m) for stage in range(p)])


def _row(stage: int, p: int, m: int) -> list[Op]:
    ahead = min(p - 1 - stage, m)
    row = [Op(stage, "F", stage, mb) for mb in range(ahead)]  # warm-up
    for mb in range(m - ahead):  # steady state
        row += [Op(stage, "F", stage, ahead + mb), Op(stage, "B", stage, mb)]
    return row + [Op(stage, "B", stage, mb) for mb in range(m - ahead, m)]  # cool-down
