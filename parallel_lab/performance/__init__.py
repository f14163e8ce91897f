"""Where the time of a step goes, what would make it shorter, and by how much."""

from parallel_lab.performance import batch, buckets, checkpointing, loader, memory_pool
from parallel_lab.performance.breakdown import PARTS, Breakdown
from parallel_lab.performance.checkpointing import checkpoint
from parallel_lab.performance.explain import Explanation, explain, verdict
from parallel_lab.performance.loader import Prefetcher
from parallel_lab.performance.memory_pool import Pool
from parallel_lab.performance.replay import Replay, replay
from parallel_lab.performance.suggestions import Suggestion
from parallel_lab.performance.torch_profile import profile_trace, read_profile

__all__ = [
    "PARTS",
    "Breakdown",
    "Explanation",
    "Pool",
    "Prefetcher",
    "Replay",
    "Suggestion",
    "batch",
    "buckets",
    "checkpoint",
    "checkpointing",
    "explain",
    "loader",
    "memory_pool",
    "profile_trace",
    "read_profile",
    "replay",
    "verdict",
]
