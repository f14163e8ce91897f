"""GPipe: all forwards, then all backwards.

Huang et al. 2019, "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism", section 2.3.

The batch is cut into m microbatches, so that the p stages work on different ones at the same time. Every stage first
runs the forwards of all of them, then the backwards, and the weights change once, when all gradients are summed. The
pipeline fills and drains once a batch, and while it does, stages stand idle.

Layers are sharded over the stages; nothing is replicated. With equal stages:

    bubble                 (p - 1) / (m + p - 1) of the time
    activations held       m microbatches on every stage
    sent per microbatch    one activation to the next stage, one gradient to the stage before
"""

from parallel_lab.pipeline.needs import require_positive, with_needs
from parallel_lab.plan import Op, Plan


def gpipe(p: int, m: int) -> Plan:
    """The schedule of `m` microbatches through `p` stages, stage i on rank i.

    Backwards run in the order of the forwards, as in PyTorch; the paper's figure 2 draws them last first. The bubble
    and the memory are the same.
    """
    require_positive(p=p, m=m)
    return with_needs([[Op(stage, kind, stage, mb) for kind in "FB" for mb in range(m)] for stage in range(p)])
