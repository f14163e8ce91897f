"""A step whose gradient is not finite changes nothing, at once or, with a fused optimizer, told one step later.

A fused optimizer clips while it steps, to the same weights.
"""

import pytest
import torch
import torch.distributed as dist
from shared_hybrid import GPT2, batches, whole_model

from parallel_lab import launch
from parallel_lab.hybrid import Layout, parallelize, train_step


def broken(fused):
    """What the steps after a weight was broken raise, and whether weights and state were as they were."""
    made = parallelize(whole_model(GPT2).float(), Layout(), lr=1e-2, fused=fused)
    first, second, third = batches(GPT2)
    train_step(made, *first)
    before = {name: p.detach().clone() for name, p in made.named_parameters().items()}
    state = [each["step"].item() for each in made.optimizer.state.values()]
    norm = made.stages[0].head.norm.weight
    norm.data[0], told = float("inf"), []
    for batch in (second, third):
        try:
            train_step(made, *batch)
            told.append("")
        except ValueError as error:
            told.append(str(error))
    norm.data[0] = before["head.norm.weight"][0]
    same = all(torch.equal(p, before[name]) for name, p in made.named_parameters().items())
    steps = [each["step"].item() for each in made.optimizer.state.values()]
    after = train_step(made, *third)
    return told, same and steps == state, after.norm.isfinite().item()


@pytest.mark.parametrize("fused, said", [(None, [True, True]), (True, [False, True])])
def test_no_weight_is_changed(fused, said):
    told, same, goes_on = launch(broken, fused, ranks=1)[0]
    assert same and goes_on
    assert [text.startswith("rank 0: the global norm of the gradients is nan") for text in told] == said


def clipped(fused):
    """The weights after three steps whose gradients are all clipped, on as many data ranks as there are."""
    made = parallelize(whole_model(GPT2), Layout(dp=dist.get_world_size()), lr=1e-2, clip=0.1, fused=fused)
    norms = [train_step(made, *batch).norm.item() for batch in batches(GPT2)]
    return norms, {name: p.detach() for name, p in made.named_parameters().items()}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_fused_optimizer_clips_as_others_do(ranks):
    (norms, plain), (_, fused) = (launch(clipped, each, ranks=ranks)[0] for each in (None, True))
    assert min(norms) > 0.1
    for name, weight in plain.items():
        torch.testing.assert_close(fused[name], weight, rtol=0, atol=1e-7, msg=name)  # its factor is in float32
