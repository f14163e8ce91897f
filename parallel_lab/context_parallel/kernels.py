"""Attention to one block, by the fastest kernel that also returns the log-sum-exp; the algorithms above see two calls.

PyTorch's fused kernels keep no scores: they walk over the keys in tiles (Dao et al. 2022, "FlashAttention"). Public
`scaled_dot_product_attention` hides the log-sum-exp, so the operators behind it are called by name. What they cannot
take, and what a later PyTorch may no longer have, goes through the plain formula of `softmax`, which holds the scores.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from parallel_lab.context_parallel import softmax

ON_CPU, ON_CUDA = "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"
LARGEST_HEAD = 256  # of the kernel for CUDA, which wants a multiple of 8 and 16 bits


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Mean of the values, (batch, heads, queries, head_width), and log-sum-exp, (batch, heads, queries).

    `key` and `value` may have fewer heads. With `causal` query i sees the keys 0 to i, as many as queries.
    """
    name = _fused(query, key)
    if name == ON_CPU:
        return operator(name)(query, key, value, 0.0, causal)
    if name == ON_CUDA:
        return operator(name)(query, key, value, 0.0, causal)[:2]
    return softmax.attention(query, key, value, _triangle(query, key) if causal else None)


def attend_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """This block's part of the gradients of query, key and value; `out` and `lse` are those over all blocks."""
    name, tensors = _fused(query, key), (grad, query, key, value, out, lse)
    if name == ON_CPU:
        return operator(f"{name}_backward")(*tensors, 0.0, causal)
    if name == ON_CUDA:
        unused = torch.empty(0, dtype=torch.uint64, device=query.device)  # the state of dropout, of which there is none
        lengths = (None, None, query.shape[2], key.shape[2])
        tensors = (*tensors[:-1], lse.contiguous())  # of a part of the rows it is not, and the kernel takes it as if
        return operator(f"{name}_backward")(*tensors, *lengths, 0.0, causal, unused, unused)
    return softmax.attention_backward(*tensors, _triangle(query, key) if causal else None)


def operator(name: str) -> Callable:
    """PyTorch's operator of that name."""
    return getattr(torch.ops.aten, name)


def _fused(query: Tensor, key: Tensor) -> str:
    """The name of the kernel for such tensors; empty where there is none."""
    name = ON_CPU if query.is_cpu else ON_CUDA
    if not query.numel() or not key.numel() or not hasattr(torch.ops.aten, f"{name}_backward"):
        return ""
    width, half = query.shape[-1], query.dtype in (torch.float16, torch.bfloat16)
    return name if query.is_cpu or (query.is_cuda and half and width % 8 == 0 and width <= LARGEST_HEAD) else ""


def _triangle(query: Tensor, key: Tensor) -> Tensor:
    return torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
