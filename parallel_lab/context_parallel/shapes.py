"""What queries, keys and values must look like, said before anything is sent."""

import torch.distributed as dist
from torch import Tensor


def check_shapes(query: Tensor, key: Tensor, value: Tensor, halves: bool, group: dist.ProcessGroup) -> None:
    """Refuses what cannot be attended to; with `halves` the tokens are two chunks of equal length.

    Raises:
        ValueError: shapes or dtypes do not fit; the message says which.
    """
    rank, shapes = f"rank {group.rank()}", [tuple(each.shape) for each in (query, key, value)]
    found = "query {}, key {}, value {}".format(*shapes)
    if {len(shape) for shape in shapes} != {4}:
        raise ValueError(f"{rank}: {found}: expected (batch, heads, seq/n, head_width) of each")
    if shapes[1] != shapes[2] or any(shapes[0][dim] != shapes[1][dim] for dim in (0, 2, 3)):
        raise ValueError(f"{rank}: {found}: all must have the same batch, tokens and width, key and value all the same")
    if shapes[1][1] < 1 or shapes[0][1] % shapes[1][1]:
        raise ValueError(f"{rank}: {shapes[0][1]} query heads do not divide among {shapes[1][1]} key-value heads")
    if len({(each.dtype, each.device) for each in (query, key, value)}) > 1:
        raise ValueError(f"{rank}: query, key and value must have one dtype and one device")
    if halves and group.size() > 1 and shapes[0][2] % 2:
        raise ValueError(
            f"{rank}: {shapes[0][2]} tokens are no two chunks of one length, as zigzag=True has them: cut the sequence"
            " by shard_sequence, or pass zigzag=False there and here"
        )
