"""Parity, dropout and recomputation with tensors on the CPU and on a GPU that the ranks share.

Tolerance, float64: 1e-9 on losses and gradients. A GPU sums in another order and has other exponentials.
"""

import dataclasses

import pytest
import torch
import torch.distributed as dist
from shared_tp import GPT2, LLAMA, apart, whole_gradients, whole_model
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.model import train
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import rank_device
from parallel_lab.tensor_parallel import sum_replicated_gradients, tensor_parallel, vocab_cross_entropy

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CONFIGS = {
    "gpt": dataclasses.replace(GPT2, seq=7, vocab=257),
    "llama": dataclasses.replace(GPT2, **LLAMA | {"kv_heads": 1}),
    "dropout": dataclasses.replace(GPT2, dropout=0.3),
}


def gradients(config, sequence, recomputed=False):
    """The whole gradients of a step with tensors on the rank's device, on the CPU; and the masks of a block."""
    model, masks = tensor_parallel(whole_model(config).to(rank_device()), sequence=sequence), []
    drop = model.blocks[0].attention.dropout
    drop.register_forward_hook(lambda _, args, out: masks.append(((out == 0) & (args[0] != 0)).cpu()))
    if recomputed:
        for block in model.blocks:
            block.forward = lambda *args, f=block.forward: checkpoint(f, *args, use_reentrant=False)
    torch.manual_seed(1)
    (x, y), *_ = text_batches(config.seq, 4, 1)
    loss = vocab_cross_entropy(model(x.to(rank_device())), y.to(rank_device()), vocab=config.vocab)
    loss.backward()
    sum_replicated_gradients(model)
    whole = whole_gradients(model, dist.group.WORLD)
    return {"": loss.detach().cpu()} | {name: grad.cpu() for name, grad in whole.items()}, masks


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_is_that_of_one_process(device):
    def fn():
        assert rank_device().type == device
        found = {}
        for name in ("gpt", "llama"):
            config = CONFIGS[name]
            right = train(whole_model(config), text_batches(config.seq, 4, 1), torch.optim.SGD, lr=0.1)
            for sequence in (False, True):
                mine, _ = gradients(config, sequence)
                loss = mine.pop("").item()
                found[name, sequence] = max(abs(loss - right.losses[0]), apart(mine, right.gradients))
        return found

    for result in launch(fn, ranks=2, device=device, timeout=120).results:
        assert max(result.values()) < 1e-9, result


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_agrees_or_differs_and_is_drawn_again(device):
    def fn():
        found = []
        for sequence in (False, True):
            once, _ = gradients(CONFIGS["dropout"], sequence)
            again, masks = gradients(CONFIGS["dropout"], sequence, recomputed=True)
            found.append((masks, apart(once, again)))
        return found

    (whole, cut), (other_whole, other_cut) = launch(fn, ranks=2, device=device, timeout=120).results
    assert torch.equal(whole[0][0], other_whole[0][0]) and not torch.equal(cut[0][0], other_cut[0][0])
    for masks, off in (whole, cut, other_whole, other_cut):
        assert len(masks) == 2 and torch.equal(*masks) and off < 1e-9
