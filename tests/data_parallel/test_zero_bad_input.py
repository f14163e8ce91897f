"""Mistakes are refused on the rank that made them, before anything is sent or changed."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import RankFailed, launch
from parallel_lab.data_parallel import Zero1, Zero2, Zero3, average_gradients

MAKE = {
    "zero1": lambda model, **kwargs: Zero1(model.parameters(), torch.optim.SGD, **({"lr": 0.1} | kwargs)),
    "zero2": lambda model, **kwargs: Zero2(model, torch.optim.SGD, **({"lr": 0.1} | kwargs)),
    "zero3": lambda model, **kwargs: Zero3(model),
}


def chain(width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))


def caught(action):
    """The message of what `action` raises. The culprit goes on into the barrier in which the others wait."""
    try:
        action()
    except (ValueError, TypeError) as error:
        if "cannot go on" not in str(error):
            dist.barrier()
        return f"{type(error).__name__}: {error}"
    return ""


def differ(rank):
    if rank != 1:
        return chain()
    return chain(5)


@pytest.mark.parametrize("technique", MAKE)
def test_ranks_with_different_models(technique):
    with pytest.raises(RankFailed, match=r"rank 1 does not have the model of rank 0") as failed:
        launch(lambda: MAKE[technique](differ(dist.get_rank())), ranks=3)
    assert failed.value.rank == 1 and "shape" in str(failed.value)


WRONG_RATES = [("0.1", TypeError), ([0.1], TypeError), (None, TypeError), (True, TypeError)]
WRONG_RATES += [(-0.1, ValueError), (float("nan"), ValueError)]


@pytest.mark.parametrize(("rate", "error"), WRONG_RATES)
@pytest.mark.parametrize("technique", ["zero1", "zero2"])
def test_a_wrong_learning_rate_is_refused_before_anything_is_sent(technique, rate, error):
    def fn():
        model = chain()
        before, pointer = [p.clone() for p in model.parameters()], model[0].weight.data_ptr()
        with pytest.raises(error, match="lr="):
            MAKE[technique](model, lr=rate)
        return pointer == model[0].weight.data_ptr() and all(map(torch.equal, before, model.parameters()))

    run = launch(fn, ranks=2)
    assert run.results == [True, True] and not run.trace.spans


@pytest.mark.parametrize("technique", ["zero1", "zero2"])
def test_a_rate_that_turns_wrong_on_one_rank_costs_nothing(technique):
    def fn():
        model = chain()
        zero = MAKE[technique](model, momentum=0.9)
        groups = zero.param_groups if technique == "zero1" else zero.optimizer.param_groups

        def backward():
            (model if technique == "zero1" else zero)(torch.ones(2, 4)).sum().backward()
            if technique == "zero1":
                average_gradients(model)

        backward()
        zero.step()
        before, shard = [p.clone() for p in model.parameters()], zero.state_dict()
        backward()
        if dist.get_rank() == 1:
            groups[0]["lr"] = "0.1"
        text = caught(zero.step)
        untouched = all(map(torch.equal, before, model.parameters()))
        for name, piece in zero.state_dict()["pieces"].items():
            old = shard["pieces"][name]["state"]["momentum_buffer"]
            untouched &= torch.equal(piece["state"]["momentum_buffer"], old)
        groups[0]["lr"] = 0.1
        zero.step()  # and training goes on
        return text, untouched, all(map(torch.equal, before, model.parameters()))

    results = launch(fn, ranks=2).results
    assert results[1][0].startswith("TypeError: lr='0.1' (str)")
    assert "cannot go on" in results[0][0]
    assert [r[1:] for r in results] == [(True, False)] * 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("technique", ["zero2", "zero3"])
def test_a_gradient_that_is_not_finite_names_rank_and_parameter_and_costs_nothing(technique, value):
    def fn():
        model = MAKE[technique](chain())
        inner = model.optimizer if technique == "zero2" else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(factor):
            (model(torch.ones(2, 4)).sum() * factor).backward()
            (model if technique == "zero2" else inner).step()

        step(1.0)
        state = (lambda: model.state_dict()) if technique == "zero2" else (lambda: model.state_dict(inner))
        before = state()
        text = caught(lambda: step(value if dist.get_rank() == 1 else 1.0))
        after = state()
        same = repr(before["pieces"]) == repr(after["pieces"])
        gone = not model.gradient_shards()
        step(1.0)
        return text, same, gone, repr(state()["pieces"]) != repr(before["pieces"])

    results = launch(fn, ranks=2).results
    assert results[1][0].startswith("ValueError: rank 1: the gradient of ") and " 1." in results[1][0]
    assert "cannot go on" in results[0][0]
    assert [r[1:] for r in results] == [(True, True, True)] * 2


def test_a_mean_gradient_that_is_not_finite_is_not_stepped():
    def fn():
        model = chain()
        optimizer = MAKE["zero1"](model)
        before = [p.clone() for p in model.parameters()]
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        model[1].bias.grad[1] = float("nan")  # in the last rank's share
        return caught(optimizer.step), all(map(torch.equal, before, model.parameters()))

    results = launch(fn, ranks=2).results
    assert "the gradient of 3 is NaN or infinite" in results[1][0] and "cannot go on" in results[0][0]
    assert [same for _, same in results] == [True, True]


def test_the_launch_names_the_rank_at_fault():
    def fn():
        model = MAKE["zero3"](chain())
        (model(torch.ones(2, 4)).sum() * (float("nan") if dist.get_rank() == 2 else 1.0)).backward()

    with pytest.raises(RankFailed, match="rank 2: the gradient of") as failed:
        launch(fn, ranks=3)
    assert failed.value.rank == 2 and list(failed.value.failures) == [2]


def frozen():
    model = chain()
    model.requires_grad_(False)
    return model


NOTHING = [
    (lambda: Zero1([], torch.optim.SGD, lr=0.1), "Zero1 got no parameters"),
    (lambda: Zero1(frozen().parameters(), torch.optim.SGD, lr=0.1), "no parameter to train"),
    (lambda: Zero2(frozen(), torch.optim.SGD, lr=0.1), "no parameter to train"),
    (lambda: Zero2(chain(), torch.optim.SGD, lr=0.1, bucket_bytes=0), "bucket_bytes=0"),
    (lambda: Zero3(nn.ReLU()), "without parameters"),
    (lambda: Zero3(chain(), prefetch=-1), "prefetch=-1"),
    (lambda: Zero3(chain(), units=[nn.Linear(2, 2)]), "not a module inside the model"),
    (lambda: Zero1([{"params": chain().parameters(), "lr": -1.0}], torch.optim.SGD), "lr=-1.0"),
]


@pytest.mark.parametrize(("make", "text"), NOTHING)
def test_nothing_to_work_on(make, text):
    with pytest.raises(RankFailed, match=text) as failed:
        launch(make, ranks=2)
    assert failed.value.cause == "ValueError"


USES = {
    "the old optimizer's step": lambda model, old: old.step(),
    "the old optimizer's zero_grad": lambda model, old: old.zero_grad(),
    "a new optimizer over the model inside": lambda model, old: torch.optim.SGD(model.parameters(), lr=0.1),
    "arithmetic": lambda model, old: model.weights[0].weight + 1,
    "a function": lambda model, old: nn.functional.linear(torch.ones(1, 4), weight=model.weights[0].weight),
    "a layer's own parameters": lambda model, old: model.head(torch.ones(1, 4)),
    "its state_dict": lambda model, old: model.state_dict(),
    "another device": lambda model, old: model.to(torch.float64),
    "printing a value": lambda model, old: model.weights[0].weight.tolist(),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        for layer in self.weights:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("use", USES)
def test_a_parameter_used_where_it_is_freed(use):
    def fn():
        model = Net()
        old = torch.optim.SGD(model.parameters(), lr=0.1)
        Zero3(model)
        with pytest.raises(RuntimeError, match=r"weight is sharded by Zero3 and not gathered now.*Zero3\(\.\.\.\)"):
            USES[use](model, old)
        return tuple(model.head.weight.shape), repr(model.head.weight)

    assert launch(fn, ranks=2).results == [((4, 4), "Released('head.weight')")] * 2


def test_a_parameter_of_another_unit_used_inside_the_forward_pass():
    class Peeks(Net):
        def forward(self, x):
            return super().forward(x) + self.weights[1].weight.sum()

    with pytest.raises(RankFailed, match=r"weights\.1\.weight is sharded"):
        launch(lambda: Zero3(Peeks())(torch.ones(1, 4)), ranks=1)


@pytest.mark.parametrize("technique", ["zero1", "zero2"])
def test_a_model_moved_afterwards(technique):
    def fn():
        model = chain()
        zero = MAKE[technique](model)
        model.double()
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        return caught(zero.step)

    assert f"was moved after {technique.capitalize()} was made" in launch(fn, ranks=1)[0]


def test_a_parameter_thawed_or_added_afterwards():
    def fn():
        model = chain()
        model[0].weight.requires_grad_(False)
        optimizer = MAKE["zero1"](model)
        model[0].weight.requires_grad_(True)
        model(torch.ones(1, 4)).sum().backward()
        with pytest.raises(ValueError, match="cannot take another group"):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
        return caught(optimizer.step)

    assert "0 was frozen when Zero1 was made, and has a gradient now" in launch(fn, ranks=1)[0]
