"""What these tests share: whole queries, keys and values, this rank's part of them, and groups of fewer ranks."""

import torch
import torch.distributed as dist
from torch.nn.functional import scaled_dot_product_attention

from parallel_lab.context_parallel import shard_sequence
from parallel_lab.runtime import rank_device


def worlds(*sizes):
    """Groups of so many of the ranks; None where this rank is not in it."""
    for n in sizes:
        group = dist.new_group(range(n))
        yield n, group if dist.get_rank() < n else None


def drawn(heads, kv_heads, seq, width=5, batch=2, dtype=torch.float64, scale=1.0):
    """Query, key, value and a gradient of the output, whole, the same on every rank."""
    generator = torch.Generator().manual_seed(heads + seq)
    sizes = (heads, kv_heads, kv_heads, heads)
    made = [torch.randn(batch, h, seq, width, dtype=dtype, generator=generator).to(rank_device()) for h in sizes]
    return [made[0] * scale, *made[1:]]


def cut(x, **options):
    """This rank's part of (batch, heads, seq, width)."""
    return shard_sequence(x.transpose(1, 2), **options).transpose(1, 2)


def one_process(query, key, value, of_out, causal=True):
    """The output and the gradients of query, key and value."""
    leaves = [each.clone().requires_grad_() for each in (query, key, value)]
    out = scaled_dot_product_attention(*leaves, is_causal=causal, enable_gqa=True)
    out.backward(of_out)
    return [out.detach(), *(each.grad for each in leaves)]


def over_ranks(attention, query, key, value, of_out, *, zigzag=True, group=None, **options):
    """The same of this rank's part, by `attention`."""
    how = {"zigzag": zigzag, "group": group}
    leaves = [cut(each, **how).clone().requires_grad_() for each in (query, key, value)]
    out = attention(*leaves, **options, **how)
    out.backward(cut(of_out, **how))
    return [out.detach(), *(each.grad for each in leaves)]


def apart(some, others):
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))


def message(fn, *args, **options):
    """What `fn` refuses with on this rank; empty where it does not."""
    try:
        fn(*args, **options)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""
