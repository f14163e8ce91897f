"""A GPT whose ranks share each sequence trains as one process does: loss, gradients, and weights after three steps.

Float64, 1e-12 on losses and gradients and on weights of order 1.
"""

import dataclasses

import pytest
import torch
from shared_cp import worlds
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.context_parallel import context_parallel, positions, sequence_loss, shard_sequence, unshard_sequence
from parallel_lab.data_parallel import DDP, average_gradients
from parallel_lab.model import GPTConfig, build, train
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import make_mesh
from parallel_lab.trace import recorder

pytestmark = pytest.mark.usefixtures("by_value")
GPT2 = GPTConfig(seq=24, width=48, heads=12, layers=2)
LLAMA = dataclasses.replace(
    GPT2, kv_heads=3, gated=True, norm="rms", positions="rotary", tied=False, bias=False, hidden=72
)
CONFIGS = {"gpt": GPT2, "llama": LLAMA}
# Some gradients are zero but for rounding (that of the keys' bias): eps keeps Adam from making steps of the noise.
ADAMW = {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-6}
TOLERANCE = 1e-12


def batches(config, ignored=0):
    """Three global batches; of the first `ignored` tokens of each sequence no target counts: of whole ranks, then."""
    made = [(x, y.clone()) for x, y in text_batches(config.seq, 4, 3)]
    for _, y in made:
        y[:, :ignored] = -100
    return made


def trained(config, made, method, zigzag, group, shard=shard_sequence, where=positions, loss=sequence_loss):
    """Losses, the last gradients and the weights of three steps, in which this rank sees its part of each sequence."""
    how = {"zigzag": zigzag, "group": group}
    model = context_parallel(build(config, dtype=torch.float64), method=method, **how)
    optimizer, losses = torch.optim.AdamW(model.parameters(), **ADAMW), []
    for step, (tokens, targets) in enumerate(made):
        optimizer.zero_grad()
        value = loss(model(shard(tokens, **how), where(config.seq, **how)), shard(targets, **how), group=group)
        value.backward()
        average_gradients(model, mb=step, group=group)
        optimizer.step()
        losses.append(value.item())
    return losses, {name: p.grad for name, p in model.named_parameters()}, model.state_dict()


def off(mine, right):
    """The largest distance of losses, gradients and weights."""
    losses, grads, weights = mine
    apart = [abs(a - b) for a, b in zip(losses, right.losses, strict=True)]
    for some, others in ((grads, right.gradients), (weights, right.weights)):
        apart += [(some[name] - other).abs().max().item() for name, other in others.items()]
    return max(apart)


def three_steps():
    found = {}
    for n, group in worlds(1, 2, 3, 4):
        for name, config in CONFIGS.items() if group else ():
            for method, zigzag, ignored in (("ring", True, 0), ("ring", False, 8), ("ulysses", True, 8)):
                if method == "ulysses" and name == "llama" and n in (2, 4):
                    continue  # 3 key-value heads
                made = batches(config, ignored)
                right = train(build(config, dtype=torch.float64), made, torch.optim.AdamW, **ADAMW)
                found[n, name, method, zigzag] = off(trained(config, made, method, zigzag, group), right)
    return found


def test_three_steps_are_those_of_one_process():
    """Also where the targets of whole ranks do not count."""
    results = launch(three_steps, ranks=4, timeout=170).results
    assert len(results[0]) == 22 and len(results[3]) == 5
    for result in results:
        assert max(result.values()) < TOLERANCE, result


def from_zero(seq, **options):
    return torch.arange(len(positions(seq, **options)))


def local_mean(logits, targets, **_):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def mistakes():
    """How far the classic mistakes end from one process."""
    config, made = GPT2, batches(GPT2, 8)
    right = train(build(config, dtype=torch.float64), made, torch.optim.AdamW, **ADAMW)
    how = {"method": "ring", "zigzag": True, "group": None}
    neighbors = lambda seq, **options: positions(seq, **options | {"zigzag": False})  # noqa: E731

    def from_own_tokens(x, **options):
        """Of targets: this rank's tokens one to the left, as if the next token of its last one were its first."""
        for tokens, targets in made:
            if x is targets:
                own = shard_sequence(tokens, **options).roll(-1, 1)
                return own.masked_fill(shard_sequence(targets, **options) == -100, -100)
        return shard_sequence(x, **options)

    wrong = {
        "positions from 0": {"where": from_zero},
        "positions of neighbors": {"where": neighbors},
        "targets shifted after the cut": {"shard": from_own_tokens},
        "the mean over this rank's targets": {"loss": local_mean},
    }
    return {name: off(trained(config, made, **how, **change), right) for name, change in wrong.items()}


def test_the_classic_mistakes_end_elsewhere():
    """They raise nothing, and the test above would find each."""
    for result in launch(mistakes, ranks=2).results:
        assert min(result.values()) > 1e-4, result


def beside_data_parallelism():
    """2 x 2 ranks: the batch over one axis, each sequence over the other; the loss and the gradients over both."""
    mesh, config, made = make_mesh(dp=2, cp=2), GPT2, batches(GPT2, 8)
    right = train(build(config, dtype=torch.float64), made, torch.optim.AdamW, **ADAMW)
    cp, row = mesh["cp"].get_group(), mesh.get_local_rank("dp")
    model = context_parallel(build(config, dtype=torch.float64), group=cp)
    wrapped, optimizer, losses = DDP(model), torch.optim.AdamW(model.parameters(), **ADAMW), []
    for tokens, targets in made:
        optimizer.zero_grad()
        mine = [shard_sequence(each.chunk(2)[row], group=cp) for each in (tokens, targets)]
        value = sequence_loss(wrapped(mine[0], positions(config.seq, group=cp)), mine[1])
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return off((losses, {name: p.grad for name, p in model.named_parameters()}, model.state_dict()), right)


def test_beside_data_parallelism_by_ddp():
    assert max(launch(beside_data_parallelism, ranks=4).results) < TOLERANCE


def recomputed():
    """Gradients with each block computed again in the backward pass, and the phases that the messages have."""
    (tokens, targets), *_ = batches(LLAMA)
    grads = []
    for again in (False, True):
        model = context_parallel(build(LLAMA, dtype=torch.float64))
        for block in model.blocks if again else ():
            block.forward = lambda *args, f=block.forward, **more: checkpoint(f, *args, **more, use_reentrant=False)
        first = len(recorder().spans)
        sequence_loss(model(shard_sequence(tokens), positions(LLAMA.seq)), shard_sequence(targets)).backward()
        grads.append([p.grad for p in model.parameters()])
    phases = {span.phase.split("/")[0].split(".")[0] for span in recorder().spans[first:] if span.kind == "send"}
    return all(torch.equal(a, b) for a, b in zip(*grads, strict=True)), phases


def test_recomputation_sends_again_and_changes_nothing():
    for same, phases in launch(recomputed, ranks=2).results:
        assert same and phases == {"forward", "backward", "recompute"}


def whole_logits():
    (tokens, _), *_ = batches(LLAMA)
    model = build(LLAMA, dtype=torch.float64)
    with torch.no_grad():
        right = model(tokens)
        logits = context_parallel(model)(shard_sequence(tokens), positions(LLAMA.seq))
        return float((unshard_sequence(logits) - right).abs().max())


def test_the_parts_of_the_logits_are_those_of_the_whole():
    assert max(launch(whole_logits, ranks=3).results) < TOLERANCE
