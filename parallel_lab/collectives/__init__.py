"""Collective algorithms: each is a function from integers to a `Plan`, and one executor runs them all."""

from parallel_lab.collectives import (
    autograd,
    full_mesh,
    halving_doubling,
    hierarchical,
    recursive_doubling,
    relay,
    ring,
    star,
    tree,
)
from parallel_lab.collectives.api import (
    algorithms,
    all_gather,
    all_reduce,
    all_to_all,
    broadcast,
    plan_for,
    reduce,
    reduce_scatter,
)
from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves
from parallel_lab.collectives.execute import execute

__all__ = [
    "ChunkPlan",
    "Message",
    "algorithms",
    "all_gather",
    "all_reduce",
    "all_to_all",
    "assemble",
    "autograd",
    "broadcast",
    "execute",
    "full_mesh",
    "halving_doubling",
    "hierarchical",
    "leaves",
    "plan_for",
    "recursive_doubling",
    "reduce",
    "reduce_scatter",
    "relay",
    "ring",
    "star",
    "tree",
]
