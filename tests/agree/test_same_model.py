"""Ranks that have another model are named, and weights are given to all."""

import itertools

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import RankFailed, launch
from parallel_lab.agree import same_model
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.trace import tag


def chain(*widths):
    return nn.Sequential(*[nn.Linear(a, b) for a, b in itertools.pairwise(widths)])


def tied():
    model = chain(3, 3, 3)
    model[1].weight = model[0].weight
    return model


def with_buffer():
    model = chain(3, 3, 3)
    model.register_buffer("scale", torch.ones(1))
    return model


def frozen():
    model = chain(3, 3, 3)
    model[0].bias.requires_grad_(False)
    return model


ODD = {
    "another shape": (lambda: chain(3, 4, 3), "shape of the parameter '0.weight' is"),
    "another dtype": (lambda: chain(3, 3, 3).double(), "dtype of the parameter '0.weight' is"),
    "a layer fewer": (lambda: chain(3, 3), "it lacks the parameter '1.weight'"),
    "a layer more": (lambda: chain(3, 3, 3, 3), "its parameter '2.weight' is not there"),
    "a tied weight": (tied, "the name of the tensor it shares"),
    "a buffer": (with_buffer, "its buffer 'scale' is not there"),
    "a frozen bias": (frozen, "requires_grad of the parameter '0.bias' is False here and True there"),
}


def every_kind():
    """What this rank is told, by kind and rank at odds. That rank then frees the others from the barrier."""
    told = {}
    for kind, (make, _) in ODD.items():
        for odd in (0, 2):
            model = make() if dist.get_rank() == odd else chain(3, 3, 3)
            with pytest.raises(ValueError) as caught:
                check_same_model(model, dist.group.WORLD)
            told[kind, odd] = str(caught.value)
            if dist.get_rank() == odd:
                dist.barrier()
    return told


def test_the_rank_that_is_at_odds_with_most_is_named():
    for rank, told in enumerate(launch(every_kind, ranks=3).results):
        for (kind, odd), text in told.items():
            if rank == odd:
                assert f"rank {odd} does not have the model of rank" in text and ODD[kind][1] in text
            else:
                assert text == f"rank {rank} cannot go on: another rank has another model"


def test_settings_count_as_well_and_equal_ranks_pass_with_one_message():
    run = launch(lambda: check_same_model(chain(2, 2), dist.group.WORLD, prefetch=1), ranks=3)
    assert [s.kind for s in run.trace.of(0)] == ["all_reduce"]
    with pytest.raises(RankFailed, match="value of the setting 'prefetch' is 2 here and 1 there") as failed:
        launch(lambda: check_same_model(chain(2, 2), dist.group.WORLD, prefetch=1 + dist.get_rank() // 2), ranks=3)
    assert failed.value.rank == 2


@pytest.mark.parametrize("n", [1, 3])
def test_tensors_of_all_kinds_become_those_of_the_source_in_few_messages(n):
    shapes = [(3, 2), (), (0, 4), (5,), (2, 2)]

    def fn():
        same_model.BROADCAST_BYTES = 64
        rank, source = dist.get_rank(), dist.get_world_size() - 1
        tensors = [torch.full(shape, float(rank * 10 + i)) for i, shape in enumerate(shapes)]
        tensors += [torch.full((4,), rank, dtype=torch.int64), torch.full((2, 3), float(rank)).t()]
        broadcast_tensors(tensors, dist.group.WORLD, source)
        expected = [torch.full(shape, float(source * 10 + i)) for i, shape in enumerate(shapes)]
        expected += [torch.full((4,), source, dtype=torch.int64), torch.full((3, 2), float(source))]
        return all(map(torch.equal, tensors, expected))

    run = launch(fn, ranks=n)
    assert run.results == [True] * n
    # 24 + 4 + 0 + 20 + 16 bytes of float32 make one message of 64, 24 more the next, and int64 travels alone.
    assert len([s for s in run.trace.of(0) if s.kind == "broadcast"]) == 3


def test_a_graph_that_was_recorded_before_still_works_and_the_messages_have_names():
    def fn():
        weight = torch.ones(2, requires_grad=True)
        buffer = torch.full((2,), 1.0 + dist.get_rank())
        loss = (weight * buffer).sum()
        with tag(mb=3, phase="forward"):
            broadcast_tensors([buffer, torch.zeros(1, dtype=torch.int64)], dist.group.WORLD)
        loss.backward()

    ops = [s.op for s in launch(fn, ranks=2).trace.of(1)]
    assert [str(op) for op in ops] == ["0broadcast3:forward", "1broadcast3:forward"]
