"""Random-k: all ranks send the same elements, chosen anew by chance in each step.

Stich et al. 2018, "Sparsified SGD with Memory", section 2 (rand-k); Wangni et al. 2018, "Gradient Sparsification
for Communication-Efficient Distributed Optimization" (unbiased without memory). Ranks draw from the same generator, so
the places are known to all and do not travel; and as they are the same, an all-reduce adds the numbers up on the way.

With the memory of `error_feedback.py` the numbers are sent as they are. Without it each is multiplied by 1/ρ, ρ the
share that is sent, so that what is sent is the gradient on average; its mean square is 1/ρ times as large.

    sent per rank and step 2 (n-1)/n ρ N e bytes, with e bytes a number: ρ of what DDP sends, at any n
"""

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.compress.gradients.error_feedback import Bucket, Compressed, Exchange, Result
from parallel_lab.compress.gradients.top_k import kept, share
from parallel_lab.compress.gradients.wire import Sizes, elements_of


class RandomK(Compressed):
    """A hook of DDP: `DDP(model, hook=RandomK(0.01))`. `fraction` and `error_feedback` are those of `TopK`.

    `seed` has to be the same on all ranks.
    """

    def __init__(self, fraction: float, *, error_feedback: bool = True, seed: int = 0) -> None:
        super().__init__(error_feedback=error_feedback, seed=seed)
        self.fraction = share(fraction)

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """One all-reduce of the numbers that were drawn."""
        elements, n = len(vector), group.size()
        k, dtype = kept(self.fraction, elements), bucket.flat.dtype
        chance = self.generator(bucket)
        places = torch.randperm(elements, generator=chance, device=vector.device)[:k]
        scale = 1.0 if self.error_feedback else elements / k
        numbers = (vector[places] * (scale / n) + vector[0] * 0).to(dtype)  # a NaN of the guard reaches all ranks
        rest = vector.index_add(0, places, numbers.to(vector.dtype), alpha=-n) if self.error_feedback else None
        yield dist.all_reduce(numbers, group=group, async_op=True)
        mean = torch.zeros_like(vector).index_copy_(0, places, numbers.to(vector.dtype))
        mean[0] += numbers[0] * 0
        return Result(mean, rest)

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """2 (n-1)/n ρ N e, for one bucket."""
        return 2 * (n - 1) / n * kept(self.fraction, elements_of(elements)) * item_bytes
