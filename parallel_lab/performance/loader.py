"""What a step costs that loads its batch itself, and one whose batches are fetched ahead.

A step that loads its own batch takes load + compute. With threads that load ahead it takes the longer of compute and
load / threads, once the first batch is there. `Prefetcher`, the loader with threads, stands in `systems.storage`.
"""

from parallel_lab.systems.storage.prefetch import Prefetcher

__all__ = ["Prefetcher", "step_s"]


def step_s(load_s: float, compute_s: float, threads: int = 0) -> float:
    """Seconds of a step in the long run: load + compute, or with threads that load ahead the longer of the two."""
    return max(compute_s, load_s / threads) if threads else load_s + compute_s
