"""Low precision: gradients travel and are added up in 16 bits.

As PyTorch's `fp16_compress_hook` and `bf16_compress_hook` (`torch.distributed.algorithms.ddp_comm_hooks`) do. Gradients
are divided by the ranks first, so that sums stay in float16's range, which ends at 65504. A sum that leaves it becomes
infinite, and the hook says so in the bucket's first element, where DDP's guard looks. bfloat16 has the range of float32
and 8 bits of it; float16 has 11 and a narrow range (chapter 12).

    sent per rank and step 2 (n-1)/n 2 N bytes: half of float32's
"""

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.compress.gradients.error_feedback import Bucket, Compressed, Exchange, Result
from parallel_lab.compress.gradients.wire import Sizes, elements_of

SUMMED = (torch.bfloat16, torch.float16, torch.float32)  # what gloo and NCCL add up


class Cast(Compressed):
    """A hook of DDP: `DDP(model, hook=Cast(torch.bfloat16))`. With `error_feedback`, rounding is made good later.

    Raises:
        ValueError: no collective adds up numbers of this dtype.
    """

    def __init__(self, dtype: torch.dtype = torch.bfloat16, *, error_feedback: bool = False) -> None:
        super().__init__(error_feedback=error_feedback)
        if dtype not in SUMMED:
            names = ", ".join(map(str, SUMMED))
            raise ValueError(f"dtype={dtype}: expected one that collectives add up, {names}; for fewer bits see QSGD")
        self.dtype = dtype

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """One all-reduce."""
        message = (vector / group.size()).to(self.dtype)
        rest = vector - message.to(vector.dtype) * group.size() if self.error_feedback else None
        yield dist.all_reduce(message, group=group, async_op=True)
        mean = message.to(vector.dtype)
        mean[0] += mean.sum() * 0
        return Result(mean, rest)

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """2 (n-1)/n N numbers of `dtype`, whatever a gradient's `item_bytes` are."""
        return 2 * (n - 1) / n * elements_of(elements) * self.dtype.itemsize
