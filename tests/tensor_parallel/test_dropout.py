"""Dropout masks agree where activations are copies, differ where they are not, and are drawn again when recomputed."""

import dataclasses

import torch
import torch.distributed as dist
from shared_tp import GPT2, apart, whole_gradients, whole_model
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch, seed_for
from parallel_lab.model import train
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import make_mesh
from parallel_lab.tensor_parallel import sum_replicated_gradients, tensor_parallel, vocab_cross_entropy

CONFIG = dataclasses.replace(GPT2, dropout=0.3)


def masks_of(model, tokens, recomputed):
    """For each residual dropout the masks that it drew, those of recomputation after the others."""
    found = {}

    def note(name):
        def hook(_module, args, out):
            found.setdefault(name, []).append(((out == 0) & (args[0] != 0)).detach())

        return hook

    for name, module in model.named_modules():
        if name.endswith("attention.dropout") or name == "embedding.dropout":
            module.register_forward_hook(note(name))
    if recomputed:
        for block in model.blocks:
            block.forward = lambda *args, f=block.forward: checkpoint(f, *args, use_reentrant=False)
    vocab_cross_entropy(model(tokens), tokens, vocab=CONFIG.vocab, group=model.head.linear.group).backward()
    return found


def masks(sequence):
    """Two shares of the batch times two ranks; every rank returns its masks, and where it stands."""
    mesh = make_mesh(dp=2, tp=2)
    torch.manual_seed(seed_for(mesh, ["dp"]))
    tokens = torch.arange(2 * CONFIG.seq).view(2, -1)
    model = tensor_parallel(whole_model(CONFIG), sequence=sequence, group=mesh["tp"].get_group())
    return masks_of(model, tokens, recomputed=True)


def equal(some, others, name):
    return torch.equal(some[name][0], others[name][0])


def test_masks_agree_over_tp_and_differ_over_dp():
    both = launch(lambda: (masks(False), masks(True)), ranks=4).results
    whole, cut = zip(*both, strict=True)  # ranks 0 and 1 share a batch, ranks 2 and 3 the other one
    for name in ("embedding.dropout", "blocks.0.attention.dropout", "blocks.1.attention.dropout"):
        assert equal(whole[0], whole[1], name) and equal(whole[2], whole[3], name)
        assert not equal(whole[0], whole[2], name)
        assert all(not equal(cut[a], cut[b], name) for a in range(4) for b in range(a))
        for found in both:
            for drawn in (each[name] for each in found):
                assert 0.15 < drawn[0].double().mean() < 0.45
                assert len(drawn) == (1 if name.startswith("embedding") else 2)
                assert all(torch.equal(drawn[0], again) for again in drawn)


def test_masks_are_those_of_one_process():
    """Without sequence parallelism the ranks draw what one process draws, so gradients agree, recomputed or not."""

    def fn(recomputed):
        batches = list(text_batches(CONFIG.seq, 4, 1))
        right = train(whole_model(CONFIG), batches, torch.optim.SGD, lr=0.1, seed=3)
        model = tensor_parallel(whole_model(CONFIG))
        if recomputed:
            for block in model.blocks:
                block.forward = lambda *args, f=block.forward: checkpoint(f, *args, use_reentrant=False)
        torch.manual_seed(3)
        (x, y), *_ = batches
        vocab_cross_entropy(model(x), y, vocab=CONFIG.vocab).backward()
        return apart(whole_gradients(model, dist.group.WORLD), right.gradients)

    assert max(launch(lambda: max(fn(False), fn(True)), ranks=2).results) < 1e-12


def test_recomputation_gives_the_same_gradients_under_sequence_parallelism():
    def gradients(recomputed):
        torch.manual_seed(3)
        model = tensor_parallel(whole_model(CONFIG), sequence=True)
        if recomputed:
            for block in model.blocks:
                block.forward = lambda *args, f=block.forward: checkpoint(f, *args, use_reentrant=False)
        tokens = torch.arange(2 * CONFIG.seq).view(2, -1)
        vocab_cross_entropy(model(tokens), tokens, vocab=CONFIG.vocab).backward()
        sum_replicated_gradients(model)
        model.eval()
        assert torch.equal(model(tokens), model(tokens))
        return whole_gradients(model, dist.group.WORLD)

    assert max(launch(lambda: apart(gradients(False), gradients(True)), ranks=2).results) < 1e-13
