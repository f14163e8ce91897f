"""Context parallelism: ranks share each sequence, and attention alone reaches over them."""

from parallel_lab.context_parallel import formulas, softmax
from parallel_lab.context_parallel.apply import context_parallel, sequence_loss
from parallel_lab.context_parallel.plans import ring_plan, ulysses_plan
from parallel_lab.context_parallel.ring_attention import ring_attention
from parallel_lab.context_parallel.ulysses import ulysses
from parallel_lab.context_parallel.zigzag import positions, shard_sequence, unshard_sequence

__all__ = [
    "context_parallel",
    "formulas",
    "positions",
    "ring_attention",
    "ring_plan",
    "sequence_loss",
    "shard_sequence",
    "softmax",
    "ulysses",
    "ulysses_plan",
    "unshard_sequence",
]
