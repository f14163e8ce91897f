"""Ranks that have another model are named, and weights are given to all."""

import itertools

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import RankFailed, launch
from parallel_lab.agree import same_model
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model


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


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("odd", [0, 2])
def test_the_rank_that_is_at_odds_with_most_is_named(kind, odd):
    make, words = ODD[kind]

    def fn():
        model = make() if dist.get_rank() == odd else chain(3, 3, 3)
        check_same_model(model, dist.group.WORLD)

    with pytest.raises(RankFailed) as failed:
        launch(fn, ranks=3, timeout=20)
    assert failed.value.rank == odd and failed.value.cause == "ValueError"
    assert f"rank {odd} does not have the model of rank" in str(failed.value) and words in str(failed.value)


def test_settings_count_as_well_and_equal_ranks_pass_with_one_message():
    run = launch(lambda: check_same_model(chain(2, 2), dist.group.WORLD, prefetch=1), ranks=3)
    assert [s.kind for s in run.trace.of(0)] == ["all_reduce"]
    with pytest.raises(RankFailed, match="value of the setting 'prefetch' is 2 here and 1 there") as failed:
        launch(lambda: check_same_model(chain(2, 2), dist.group.WORLD, prefetch=1 + dist.get_rank() // 2), ranks=3)
    assert failed.value.rank == 2


@pytest.mark.parametrize("n", [1, 2, 3])
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
