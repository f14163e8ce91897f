"""A step over ranks that share each sequence, with tensors on the CPU and on a GPU that the ranks share.

Tolerance, float64: 1e-9 on losses and gradients; a GPU sums in another order and has other exponentials. In bfloat16
the GPU's fused kernel runs; it is held against float64 in one process, and may be off by a hundredth of the largest.
"""

import dataclasses

import pytest
import torch
from shared_cp import cut, drawn, one_process, over_ranks
from torch.optim import SGD

from parallel_lab import launch
from parallel_lab.context_parallel import (
    context_parallel,
    kernels,
    positions,
    ring_attention,
    sequence_loss,
    shard_sequence,
    ulysses,
)
from parallel_lab.data_parallel import average_gradients
from parallel_lab.model import GPTConfig, build, train
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import rank_device

pytestmark = pytest.mark.usefixtures("by_value")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
GPT2 = GPTConfig(seq=16, width=48, heads=12, layers=2)
CONFIGS = [GPT2, dataclasses.replace(GPT2, kv_heads=2, positions="rotary", gated=True, norm="rms")]


def step(config, method):
    """How far the loss and the gradients are from those of one process."""
    (tokens, targets), *_ = made = list(text_batches(config.seq, 4, 1))
    right = train(build(config, dtype=torch.float64), made, SGD, lr=0.1)
    model = context_parallel(build(config, dtype=torch.float64).to(rank_device()), method=method)
    mine = [shard_sequence(each.to(rank_device())) for each in (tokens, targets)]
    loss = sequence_loss(model(mine[0], positions(config.seq)), mine[1])
    loss.backward()
    average_gradients(model)
    apart = [(p.grad.cpu() - right.gradients[name]).abs().max().item() for name, p in model.named_parameters()]
    return max(abs(loss.item() - right.losses[0]), *apart)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_is_that_of_one_process(device):
    def fn():
        assert rank_device().type == device
        return {
            (number, how): step(config, how) for number, config in enumerate(CONFIGS) for how in ("ring", "ulysses")
        }

    for result in launch(fn, ranks=2, device=device, timeout=120).results:
        assert max(result.values()) < 1e-9, result


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_16_and_32_bits_by_the_device_s_kernel(device, dtype):
    """Grouped-query heads; scores of hundreds. In 16 bits a GPU has a fused kernel, in 32 the plain formula runs."""

    def fn():
        narrow = drawn(8, 2, 256, 64, 1, dtype, scale=20.0)
        fused = kernels._fused(narrow[0], narrow[1])
        assert fused == (kernels.ON_CPU if device == "cpu" else kernels.ON_CUDA * (dtype is torch.bfloat16))
        right = one_process(*(each.double() for each in narrow))
        found = []
        for attention in (ring_attention, ulysses):
            mine = over_ranks(attention, *narrow)
            assert all(each.isfinite().all() and each.dtype is dtype for each in mine)
            found += [float((a - cut(b)).abs().max() / b.abs().max()) for a, b in zip(mine, right, strict=True)]
        return found

    for found in launch(fn, ranks=2, device=device, timeout=120).results:
        assert max(found) < (1e-2 if dtype is torch.bfloat16 else 1e-4), found
