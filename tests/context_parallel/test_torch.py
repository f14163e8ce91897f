"""Against PyTorch's own ring attention, forward and backward: the same numbers, for the same bytes or fewer.

Its public `context_parallel` has no rule for the CPU's kernel, so the functions behind it are called. Its default
gathers all keys and values before it begins; with "alltoall" they go round. It sends the gradients' sums n times.
"""

import pytest
import torch
import torch.distributed as dist
from shared_cp import apart, drawn
from torch.distributed.tensor.experimental._context_parallel import _attention as torch_s

from parallel_lab import launch
from parallel_lab.context_parallel import formulas, ring_attention, shard_sequence
from parallel_lab.trace import recorder

pytestmark = pytest.mark.usefixtures("by_value")
SEQ, KERNEL = 24, "_scaled_dot_product_flash_attention_for_cpu"


def templated(query, key, value, of_out, *, rotation, zigzag):
    """PyTorch's passes over the default group, of this rank's part."""
    torch_s._cp_options.convert_to_f32 = False  # or float64 is rounded
    torch_s._cp_options.enable_load_balance = zigzag
    torch_s.set_rotate_method(rotation)
    forward, backward = (getattr(torch.ops.aten, KERNEL + end).default for end in ("", "_backward"))
    how = {"is_causal": True, "dropout_p": 0.0}
    out, lse = torch_s._templated_ring_attention(dist.group.WORLD, 2, forward, query, key, value, **how)[:2]
    first = recorder().sent_bytes
    more = {"query": query, "key": key, "value": value, "out": out, "logsumexp": lse, **how}
    grads = torch_s._templated_ring_attention_backward(
        dist.group.WORLD, 2, backward, grad_out=of_out, grad_out_name="grad_out", **more
    )
    return [out, *grads[:3]], recorder().sent_bytes - first


def compared():
    found = []
    for zigzag in (True, False):
        parts = [shard_sequence(each.transpose(1, 2), zigzag=zigzag).transpose(1, 2) for each in drawn(4, 4, SEQ)]
        leaves = [each.contiguous().requires_grad_() for each in parts[:3]]
        out = ring_attention(*leaves, zigzag=zigzag)
        first = recorder().sent_bytes
        out.backward(parts[3])
        backward_bytes = recorder().sent_bytes - first
        for rotation in ("alltoall", "allgather"):
            plain = [each.detach().contiguous() for each in parts]
            theirs, their_bytes = templated(*plain, rotation=rotation, zigzag=zigzag)
            mine = [out.detach(), *(each.grad for each in leaves)]
            found.append((zigzag, rotation, apart(mine, theirs), backward_bytes, their_bytes))
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_numbers_of_torch_s_templated_ring(ranks):
    """Float64, to 1e-12; backward (n-1) S_KV of keys and values, and n-1 of sums where torch sends n."""
    shard = formulas.shard_bytes(2, SEQ, 4, 5, ranks, 8)
    for result in launch(compared, ranks=ranks, timeout=120).results:
        assert len(result) == 4
        for zigzag, rotation, off, sent, their_bytes in result:
            assert off < 1e-12, (zigzag, rotation, off)
            assert sent == formulas.ring_bytes(shard, ranks, 8).backward == 2 * (ranks - 1) * shard
            assert their_bytes >= (2 * ranks - 1) * shard, (zigzag, rotation, their_bytes / shard)
