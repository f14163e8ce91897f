"""Bad input ends in an error that names the rank that caused it and says what to do; nothing is lost."""

import re

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from parallel_lab import RankFailed, launch
from parallel_lab.data_parallel import DDP, average_gradients


def failure(fn, *args, ranks=3):
    with pytest.raises(RankFailed) as failed:
        launch(fn, *args, ranks=ranks)
    return failed.value


def says(failed, pattern):
    assert re.search(pattern, str(failed), re.DOTALL), str(failed)


def pair(first, second, dtype=torch.float32):
    return nn.ModuleDict({"a": nn.Linear(2, first, dtype=dtype), "b": nn.Linear(2, second)})


def different(kind, odd):
    model = pair(3, 3)
    settings = {}
    if dist.get_rank() == odd:
        if kind == "shape":
            model = pair(3, 4)
        elif kind == "dtype":
            model = pair(3, 3, torch.float64)
        elif kind == "order":
            model = nn.ModuleDict({"b": model["b"], "a": model["a"]})
        elif kind == "lacks":
            model = nn.ModuleDict({"a": model["a"]})
        elif kind == "extra":
            model["c"] = nn.Linear(1, 1)
        elif kind == "frozen":
            model["b"].weight.requires_grad_(False)
        elif kind == "tied":
            model["b"].weight = model["a"].weight
        elif kind == "buffer":
            model.register_buffer("steps", torch.zeros(1))
        elif kind == "setting":
            settings["bucket_bytes"] = 17
    DDP(model, **settings)


@pytest.mark.parametrize("odd", [0, 2])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shape", r"shape of the parameter 'b.weight' is \(4, 2\) here and \(3, 2\) there"),
        ("dtype", "dtype of the parameter 'a.weight' is torch.float64 here and torch.float32 there"),
        ("order", "the parameter 'b.weight' stands where it has 'a.weight'"),
        ("lacks", "it lacks the parameter 'b.(weight|bias)'"),
        ("extra", "its parameter 'c.(weight|bias)' is not there"),
        ("frozen", "requires_grad of the parameter 'b.weight' is False here and True there"),
        ("tied", "'b.weight' is a.weight here and b.weight there"),
        ("buffer", "its buffer 'steps' is not there"),
        ("setting", "value of the setting 'bucket_bytes' is 17 here and 26214400 there"),
    ],
)
def test_the_rank_with_another_model_is_named(kind, message, odd):
    failed = failure(different, kind, odd)
    assert (failed.rank, failed.cause) == (odd, "ValueError")
    assert list(failed.failures) == [odd], "the others wait"
    says(failed, rf"rank {odd} does not have the model of rank {1 if odd == 0 else 0}: .*{message}")


def test_of_two_ranks_the_second_is_at_odds():
    assert failure(different, "shape", 1, ranks=2).rank == 1


def not_finite(value, culprit):
    """Every rank catches its error and looks whether anything was lost; the culprit then frees the others."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    net = DDP(model, bucket_bytes=1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        if step == 1:
            before = {name: t.clone() for name, t in model.state_dict().items()}
            if dist.get_rank() == culprit:
                model[1].weight.register_hook(lambda g: g * torch.tensor([1.0, value, 1.0]))
        try:
            net(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        except ValueError as error:
            if dist.get_rank() == culprit:
                dist.barrier()
            same = all(torch.equal(before[name], t) for name, t in model.state_dict().items())
            return str(error), same
    return "nothing was raised", False


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_gradient_that_is_not_finite(value, ranks):
    culprit = ranks - 1
    for rank, (message, same) in enumerate(launch(not_finite, value, culprit, ranks=ranks).results):
        assert same, "the weights are as they were"
        if rank == culprit:
            assert f"rank {rank}: the gradient of '1.weight' has NaN or infinity" in message
        else:
            assert message == f"rank {rank} cannot go on: gradients of rank {culprit} are NaN or infinite"


def test_a_hook_that_makes_nan_is_to_blame():
    def fn():
        def broken(group, flat):
            flat.fill_(float("nan"))
            return dist.all_reduce(flat, group=group, async_op=True)

        DDP(nn.Linear(2, 2), hook=broken)(torch.ones(1, 2)).sum().backward()

    says(failure(fn), "the mean gradient that the hook gave has NaN")


def test_the_check_can_be_turned_off():
    def fn():
        net = DDP(nn.Linear(2, 1), check_finite=False)
        (net(torch.ones(1, 2)).sum() * float("nan")).backward()
        return net.module.weight.grad.isnan().all().item()

    assert launch(fn, ranks=2).results == [True, True]


def test_backward_twice_after_one_forward():
    def fn():
        net = DDP(nn.Linear(2, 1))
        loss = net(torch.ones(1, 2)).square().sum()
        loss.backward(retain_graph=True)
        if dist.get_rank() == 1:
            loss.backward()
        else:
            dist.barrier()

    failed = failure(fn)
    assert failed.rank == 1
    says(failed, r"rank 1: this backward pass has no forward .*backward ran twice after one forward.*no_sync")


def test_going_around_the_wrapper():
    def fn():
        DDP(model := nn.Linear(2, 1))
        model(torch.ones(1, 2)).sum().backward()

    says(failure(fn, ranks=1), "the wrapped model was called itself")


def test_without_sync_a_second_backward_is_fine():
    def fn():
        net = DDP(nn.Linear(2, 1))
        with net.no_sync():
            loss = net(torch.ones(1, 2)).square().sum()
            loss.backward(retain_graph=True)
            loss.backward()

    launch(fn, ranks=1)


@pytest.mark.parametrize(
    ("make", "cause", "message"),
    [
        (lambda: DDP(lambda x: x), "TypeError", "DDP wraps a torch.nn.Module, got function"),
        (lambda: DDP(nn.Linear(1, 1), hook="mean"), "TypeError", "hook is 'mean': expected a function"),
        (lambda: DDP(nn.ReLU()), "ValueError", "no parameter requires a gradient"),
        (lambda: DDP(nn.Linear(1, 1).requires_grad_(False)), "ValueError", "no parameter requires a gradient"),
        (lambda: DDP(nn.Embedding(3, 2, sparse=True)), "ValueError", "use sparse=False"),
        (lambda: DDP(nn.Linear(1, 1), bucket_bytes=0), "ValueError", "bucket_bytes is 0: expected a whole number"),
        (lambda: DDP(nn.Linear(1, 1), bucket_bytes=2.5), "ValueError", "bucket_bytes is 2.5"),
        (lambda: average_gradients(nn.ReLU()), "ValueError", "no parameter of this model requires a gradient"),
    ],
)
def test_what_one_rank_gets_wrong_is_named(make, cause, message):
    def fn():
        if dist.get_rank() == 1:
            make()
        DDP(nn.Linear(1, 1))

    failed = failure(fn, ranks=2)
    assert (failed.rank, failed.cause) == (1, cause)
    says(failed, f"rank 1: .*{message}")


def test_a_hook_that_returns_nothing():
    def fn():
        def forgot(group, flat):
            dist.all_reduce(flat, group=group)

        DDP(nn.Linear(1, 1), hook=forgot)(torch.ones(1, 1)).sum().backward()

    failed = failure(fn, ranks=2)
    assert failed.cause == "TypeError"
    says(failed, r"the gradient hook forgot returned None: expected a handle with wait\(\)")


def test_a_hook_that_returns_another_size():
    def fn():
        def short(group, flat):
            future = torch.futures.Future()
            future.set_result(flat[:1].clone())
            return future

        DDP(nn.Linear(1, 1), hook=short)(torch.ones(1, 1)).sum().backward()

    says(failure(fn, ranks=1), "gave 1 elements for a bucket of 2")


class Reentrant(nn.Linear):
    """Runs itself twice under the old kind of checkpointing, whose backward passes are nested."""

    def forward(self, x):
        return checkpoint(super().forward, checkpoint(super().forward, x, use_reentrant=True), use_reentrant=True)


def test_reentrant_checkpointing_is_refused_before_a_bucket_is_spoilt():
    def fn():
        DDP(Reentrant(2, 2))(torch.ones(1, 2, requires_grad=True)).sum().backward()

    says(
        failure(fn, ranks=1), "came twice in one backward pass; with activation checkpointing, pass use_reentrant=False"
    )
