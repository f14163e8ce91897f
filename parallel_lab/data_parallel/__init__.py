"""Data parallelism: every rank has the model (or a shard of it) and its own part of each batch."""

from parallel_lab.data_parallel import ddp, formulas, zero1, zero2, zero3
from parallel_lab.data_parallel.average import average_gradients
from parallel_lab.data_parallel.checkpoint import consolidate, from_torch, to_torch
from parallel_lab.data_parallel.ddp import DDP
from parallel_lab.data_parallel.extras.clip import clip_grad_norm_
from parallel_lab.data_parallel.extras.hooks import mean_hook
from parallel_lab.data_parallel.extras.sampler import ShardedSampler, Share, shard_batch
from parallel_lab.data_parallel.zero1 import Zero1
from parallel_lab.data_parallel.zero2 import Zero2
from parallel_lab.data_parallel.zero3 import Zero3

__all__ = [
    "DDP",
    "ShardedSampler",
    "Share",
    "Zero1",
    "Zero2",
    "Zero3",
    "average_gradients",
    "clip_grad_norm_",
    "consolidate",
    "ddp",
    "formulas",
    "from_torch",
    "mean_hook",
    "shard_batch",
    "to_torch",
    "zero1",
    "zero2",
    "zero3",
]
