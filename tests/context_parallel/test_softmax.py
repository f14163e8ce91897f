"""The merge of blocks and the plain formula: any order, rows that see nothing, scores of thousands, 16-bit inputs."""

import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from parallel_lab.context_parallel import kernels, softmax
from parallel_lab.context_parallel.softmax import Merged

BLOCKS = [slice(0, 3), slice(3, 4), slice(4, 9)]


def drawn(heads=4, kv_heads=2, dtype=torch.float64, scale=1.0, seq=9, width=8):
    generator = torch.Generator().manual_seed(1)
    make = lambda h: torch.randn(2, h, seq, width, dtype=torch.float64, generator=generator).to(dtype)  # noqa: E731
    return make(heads) * scale, make(kv_heads), make(kv_heads), make(heads)


def merged(query, key, value, visible, order):
    whole = Merged()
    for place in order:
        keys = BLOCKS[place]
        whole.add(*softmax.attention(query, key[..., keys, :], value[..., keys, :], visible[:, keys]))
    return whole.both()


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_blocks_merge_into_one_softmax_in_any_order(scale):
    """Also where a block shows a row nothing (key 4 and on to query 0), first or last; scores reach thousands."""
    query, key, value, _ = drawn(scale=scale)
    visible = torch.ones(9, 9, dtype=torch.bool).tril()
    right = scaled_dot_product_attention(query, key, value, attn_mask=visible, enable_gqa=True)
    for order in itertools.permutations(range(len(BLOCKS))):
        out, lse = merged(query, key, value, visible, order)
        assert (out - right).abs().max() < 1e-12 and lse.isfinite().all(), order


def test_gradients_of_blocks_add_up():
    query, key, value, grad = drawn(scale=200.0)
    visible = torch.ones(9, 9, dtype=torch.bool).tril()
    leaves = [each.clone().requires_grad_() for each in (query, key, value)]
    scaled_dot_product_attention(*leaves, attn_mask=visible, enable_gqa=True).backward(grad)
    out, lse = merged(query, key, value, visible, range(3))
    of_query = torch.zeros_like(query)
    for keys in BLOCKS:
        parts = softmax.attention_backward(
            grad, query, key[..., keys, :], value[..., keys, :], out, lse, visible[:, keys]
        )
        of_query += parts[0]
        for leaf, part in zip(leaves[1:], parts[1:], strict=True):
            assert (leaf.grad[..., keys, :] - part).abs().max() < 1e-11
    assert (leaves[0].grad - of_query).abs().max() < 1e-11


def test_a_row_that_sees_nothing_at_all():
    """Its mean is 0 and its gradients too, and no other row notices."""
    query, key, value, grad = drawn()
    visible = torch.ones(9, 9, dtype=torch.bool)
    visible[4] = False
    out, lse = merged(query, key, value, visible, range(3))
    assert (out[..., 4, :] == 0).all() and (lse[..., 4] == -torch.inf).all()
    assert lse[..., :4].isfinite().all() and out.isfinite().all()
    parts = softmax.attention_backward(grad, query, key, value, out, lse, visible)
    assert all(part.isfinite().all() for part in parts) and (parts[0][..., 4, :] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_16_bit_numbers_do_not_depend_on_how_many_blocks(dtype):
    """Merged in float32, 64 blocks are off as little as one is: by what the inputs' dtype rounds, once."""
    query, key, value, _ = drawn(dtype=dtype, seq=64)
    right = scaled_dot_product_attention(*(each.double() for each in (query, key, value)), enable_gqa=True)
    off = []
    for blocks in (1, 64):
        whole = Merged()
        for keys in torch.arange(64).tensor_split(blocks):
            whole.add(*kernels.attend(query, key[..., keys, :], value[..., keys, :], False))
        out, _ = whole.both()
        assert out.dtype is torch.float32
        off.append(float((out - right).abs().max()))
    assert off[1] < 1.5 * off[0] < 0.02


def test_a_merge_in_16_bits_loses_more_with_each_block():
    """What the test above is there for: the same merge, rounded after each block."""
    query, key, value, _ = drawn(dtype=torch.bfloat16, seq=256)
    right = scaled_dot_product_attention(*(each.double() for each in (query, key, value)), enable_gqa=True)
    whole, rounded = Merged(), Merged()
    for keys in torch.arange(256).tensor_split(128):
        block = softmax.attention(query, key[..., keys, :], value[..., keys, :])
        whole.add(*(each.clone() for each in block))
        rounded.add(*(each.clone() for each in block))
        rounded.out = rounded.out.bfloat16().float()
    off, off_rounded = (float((each.both()[0] - right).abs().max()) for each in (whole, rounded))
    assert off_rounded > 4 * off


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("causal", [True, False])
def test_the_fused_kernel_is_the_plain_formula(monkeypatch, dtype, causal):
    query, key, value, grad = drawn(dtype=dtype)
    fused = kernels.attend(query, key, value, causal)
    passes = kernels.attend_backward(grad, query, key, value, *fused, causal)
    assert kernels._fused(query, key) == kernels.ON_CPU
    monkeypatch.setattr(kernels, "_fused", lambda query, key: "")
    plain = kernels.attend(query, key, value, causal)
    others = kernels.attend_backward(grad, query, key, value, *plain, causal)
    limit = 1e-12 if dtype is torch.float64 else 1e-5
    for a, b in zip((*fused, *passes), (*plain, *others), strict=True):
        assert a.dtype is dtype and (a - b).abs().max() < limit


def test_nothing_merged_and_nothing_to_attend_to():
    with pytest.raises(ValueError, match="no block was added"):
        Merged().both()
    empty = torch.empty(0, 2, 4, 8)
    out, lse = kernels.attend(empty, empty, empty, True)
    assert out.shape == (0, 2, 4, 8) and lse.shape == (0, 2, 4)
