"""Looped breadth-first: all microbatches through a chunk before the next chunk begins.

Lamy-Poirier 2023, "Breadth-First Pipeline Parallelism" (arXiv 2211.05953), section 4.1.

As in interleaved 1F1B, p*v stages are dealt out like cards, so the pipeline fills in chunks, 1/v as long as a rank's
layers. But a rank takes all m microbatches through its first chunk, then all through its second, and comes back the
same way. It holds as much as GPipe; in return the weights of a chunk are needed in two stretches only, so that sharded
ones are gathered twice a step instead of once a microbatch, and their gradients are reduced while others compute.

Layers are sharded, v chunks per rank; nothing is replicated. With equal chunks, and m at least p:

    bubble                 (p - 1) / (v*m + p - 1) of the time
    activations held       m microbatches of all v chunks on every rank, as in GPipe
    sent per microbatch    2 (p*v - 1) messages by all ranks: an activation and a gradient over each cut
"""

from parallel_lab.pipeline.needs import require_positive, with_needs
from parallel_lab.plan import Op, Plan


def looped_bfs(p: int, m: int, v: int) -> Plan:
    """The schedule of `m` microbatches through `p * v` stages, stage i on rank i mod p.

    Backwards run in the order of the forwards; PyTorch runs the last microbatch first. With fewer microbatches than
    ranks it works, but a chunk then waits until the first microbatch has come round.
    """
    require_positive(p=p, m=m, v=v)
    return with_needs([_row(rank, p, m, v) for rank in range(p)])


def _row(rank: int, p: int, m: int, v: int) -> list[Op]:
    chunks = range(rank, p * v, p)
    forwards = [Op(rank, "F", stage, mb) for stage in chunks for mb in range(m)]
    return forwards + [Op(rank, "B", stage, mb) for stage in reversed(chunks) for mb in range(m)]
