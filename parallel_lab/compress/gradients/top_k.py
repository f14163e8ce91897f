"""Top-k: each rank sends its largest elements, with their places, and keeps the others for later.

Aji and Heafield 2017, "Sparse Communication for Distributed Gradient Descent"; Lin et al. 2018, "Deep Gradient
Compression" (with momentum correction, which a hook cannot do: it does not see the optimizer). Stich et al. 2018,
"Sparsified SGD with Memory", prove for convex problems that with the memory of `error_feedback.py` it converges as SGD.

A bucket of N elements sends ρ N numbers, rounded up, and as many places of four bytes, in one message. Ranks choose
different places, so these messages cannot be added up on the way: all go to all, and each rank adds them up itself.

    sent per rank and step (n-1) ρ N (e + 4) bytes, with e bytes a number: this grows with n, as an all-reduce does not

A ring all-reduce of float32 sends 2 (n-1)/n 4 N bytes. So top-k sends less only where ρ < 1/n (`break_even`).
"""

from math import ceil

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.compress.gradients.error_feedback import Bucket, Compressed, Exchange, Result
from parallel_lab.compress.gradients.wire import Sizes, elements_of, gather, joined, parted

PLACE = torch.int32  # where an element stands: a bucket has fewer than 2^31


class TopK(Compressed):
    """A hook of DDP: `DDP(model, hook=TopK(0.01))`.

    Args:
        fraction: ρ, of the elements of a bucket that are sent, above 0 and at most 1; one at least.
        error_feedback: False forgets what is not sent.

    Raises:
        ValueError: `fraction` is not above 0 and at most 1.
    """

    def __init__(self, fraction: float, *, error_feedback: bool = True) -> None:
        super().__init__(error_feedback=error_feedback)
        self.fraction = share(fraction)

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """One all-gather of numbers and places."""
        k, dtype, n = kept(self.fraction, len(vector)), bucket.flat.dtype, group.size()
        places = vector.abs().topk(k, sorted=False).indices
        numbers = vector[places].to(dtype)
        work, every = gather(group, joined(numbers, places.to(PLACE)))
        rest = vector.index_add(0, places, numbers.to(vector.dtype), alpha=-1) if self.error_feedback else None
        yield work
        mean = torch.zeros_like(vector)
        for numbers, places in zip(*parted(every, (dtype, k), (PLACE, k)), strict=True):  # of each rank
            mean.index_add_(0, places, numbers.to(mean.dtype), alpha=1 / n)
        return Result(mean, rest)

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """(n-1) ρ N (e + 4), for one bucket."""
        return (n - 1) * kept(self.fraction, elements_of(elements)) * (item_bytes + PLACE.itemsize)


def share(fraction: float) -> float:
    """`fraction`, refused where it is not above 0 and at most 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: expected the share of elements to send, above 0 and at most 1")
    return float(fraction)


def kept(fraction: float, elements: int) -> int:
    """How many of `elements` are sent."""
    return max(1, ceil(fraction * elements))


def break_even(n: int, item_bytes: int = 4) -> float:
    """The fraction at which top-k over n ranks sends as much as a ring all-reduce of everything; 1/n for float32."""
    return 2 * item_bytes / (n * (item_bytes + PLACE.itemsize))
