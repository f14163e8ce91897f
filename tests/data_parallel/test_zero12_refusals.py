"""Stages 1 and 2 refuse mistakes on the rank that made them, before anything is sent or changed, in a sentence."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import RankFailed, launch
from parallel_lab.data_parallel import Zero1, Zero2, average_gradients

MAKE = {
    "zero1": lambda model, **kwargs: Zero1(model.parameters(), torch.optim.SGD, **({"lr": 0.1} | kwargs)),
    "zero2": lambda model, **kwargs: Zero2(model, torch.optim.SGD, **({"lr": 0.1} | kwargs)),
}


def chain(width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))


def caught(action):
    """The message of what `action` raises. The culprit goes on into the barrier in which the others wait."""
    try:
        action()
    except (ValueError, TypeError, RuntimeError) as error:
        if "cannot go on" not in str(error) and dist.get_world_size() > 1:
            dist.barrier()
        return f"{type(error).__name__}: {error}"
    return ""


def backward(technique, zero, model, factor=1.0):
    loss = (model if technique == "zero1" else zero)(torch.ones(2, 4)).sum() * factor
    loss.backward()
    if technique == "zero1":
        average_gradients(model)


@pytest.mark.parametrize("technique", MAKE)
def test_ranks_with_different_models(technique):
    with pytest.raises(RankFailed, match=r"rank 1 does not have the model of rank 0") as failed:
        launch(lambda: MAKE[technique](chain(4 + (dist.get_rank() == 1))), ranks=3)
    assert failed.value.rank == 1 and "shape" in str(failed.value)


def frozen():
    model = chain()
    model.requires_grad_(False)
    return model


ARGUMENTS = [
    (lambda: Zero1(chain().parameters(), torch.optim.AdamW, 1e-3), TypeError, "Zero1.*positional"),
    (lambda: Zero2(chain(), torch.optim.AdamW, 1e-3), TypeError, "Zero2.*positional"),
    (lambda: Zero1([], torch.optim.SGD, lr=0.1), ValueError, "Zero1 got no parameters"),
    (lambda: Zero1(frozen().parameters(), torch.optim.SGD, lr=0.1), ValueError, "no parameter to train"),
    (lambda: Zero2(frozen(), torch.optim.SGD, lr=0.1), ValueError, "no parameter"),
    (lambda: Zero2(chain(), torch.optim.SGD, lr=0.1, bucket_bytes=0), ValueError, "bucket_bytes=0"),
    (lambda: Zero1([{"params": chain().parameters(), "lr": -1.0}], torch.optim.SGD), ValueError, "lr=-1.0"),
    (lambda: Zero1(chain().parameters(), torch.optim.Adafactor, lr=0.1), ValueError, "Adafactor looks at more than"),
    (lambda: Zero2(chain(), torch.optim.LBFGS, lr=0.1), ValueError, "LBFGS looks at more than"),
    (lambda: grouped(lambda model: [model[0].weight]), ValueError, "0.bias is to be trained and is in no group"),
]
RATES = {TypeError: ["0.1", [0.1], None, True], ValueError: [-0.1, float("nan")]}
ARGUMENTS += [
    (lambda make=make, rate=rate: make(chain(), lr=rate), error, "lr=")
    for make in MAKE.values()
    for error, rates in RATES.items()
    for rate in rates
]


def grouped(choose):
    model = chain()
    Zero2(model, torch.optim.SGD, lr=0.1, param_groups=choose(model))


def test_arguments_are_refused_before_anything_is_sent():
    def fn():
        for make, error, text in ARGUMENTS:
            with pytest.raises(error, match=text):
                make()

    assert not launch(fn, ranks=2).trace.spans


@pytest.mark.parametrize("technique", MAKE)
def test_a_step_that_one_rank_cannot_take_costs_nothing(technique):
    """A rate that turns wrong; a gradient that is not finite; and training goes on."""

    def same(some, others):
        return repr(some["parameters"]) == repr(others["parameters"])

    def fn():
        model = chain()
        zero = MAKE[technique](model, momentum=0.9)
        backward(technique, zero, model)
        zero.step()
        before, texts, untouched = zero.shard_state(), [], []
        backward(technique, zero, model)
        if dist.get_rank() == 1:
            zero.param_groups[0]["lr"] = "0.1"
        texts.append(caught(zero.step))
        untouched.append(same(before, zero.shard_state()))
        zero.param_groups[0]["lr"] = 0.1
        for value in (float("nan"), float("inf")):
            zero.zero_grad()
            if technique == "zero1":
                backward(technique, zero, model)
                model[1].bias.grad[1] = value  # in the last rank's shard
                texts.append(caught(zero.step))
            else:
                texts.append(caught(lambda v=value: backward(technique, zero, model, v if dist.get_rank() else 1.0)))
                assert not zero.gradient_shards()
            untouched.append(same(before, zero.shard_state()))
        zero.zero_grad()
        backward(technique, zero, model)
        zero.step()
        return texts, untouched, same(before, zero.shard_state())

    (told, *ours), (texts, *theirs) = launch(fn, ranks=2).results
    assert texts[0].startswith("TypeError: lr='0.1' (str)")
    assert all("rank 1: the gradient of" in text and "is NaN or infinite" in text for text in texts[1:])
    assert all("cannot go on" in text for text in told)
    assert ours == theirs == [[True] * 3, False]


@pytest.mark.parametrize("technique", MAKE)
def test_without_the_check_a_gradient_that_is_not_finite_is_stepped(technique):
    def fn():
        model = chain()
        zero = MAKE[technique](model, check_finite=False)
        (model if technique == "zero1" else zero)(torch.ones(2, 4) * float("inf")).sum().backward()
        zero.step()
        return any(p.isfinite().logical_not().any().item() for p in model.parameters())

    assert launch(fn, ranks=2).results == [True, True]


def test_models_that_changed_afterwards():
    def moved(technique):
        model = chain()
        zero = MAKE[technique](model)
        model.double()
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        return caught(zero.step)

    def thawed(technique):
        model = chain()
        model[0].weight.requires_grad_(False)
        zero = MAKE[technique](model)
        model[0].weight.requires_grad_(True)
        return caught(lambda: [backward(technique, zero, model), zero.step()])

    def not_sent():
        zero = MAKE["zero2"](chain())
        with zero.no_sync():
            zero(torch.ones(1, 4)).sum().backward()
        return caught(zero.step)

    def replaced():
        model = chain()
        zero = MAKE["zero2"](model)
        model[1] = nn.Linear(4, 3)
        return caught(lambda: zero(torch.ones(1, 4)))

    def added():
        zero = MAKE["zero1"](chain())
        return caught(lambda: zero.add_param_group({"params": [nn.Parameter(torch.ones(1))]}))

    def copied():
        model = chain()
        return [
            caught(lambda each=each, do=do: do(each))
            for each in (MAKE["zero1"](model), MAKE["zero2"](model))
            for do in (copy.deepcopy, pickle.dumps)
        ]

    def fn():
        return (
            moved("zero1"),
            moved("zero2"),
            thawed("zero1"),
            thawed("zero2"),
            replaced(),
            added(),
            copied(),
            not_sent(),
        )

    one, two, thawed1, thawed2, new, group, copies, unsent = launch(fn, ranks=1)[0]
    assert "was moved after Zero1 was made" in one and "was moved after Zero2 was made" in two
    assert "0 was frozen or not there when Zero1 was made, and has a gradient now" in thawed1
    assert "0.weight was frozen or not there when Zero2 was made, and requires a gradient now" in thawed2
    assert "1.weight was frozen or not there" in new
    assert "cannot take another group" in group
    assert "was never sent: it was set by hand or inside no_sync()" in unsent
    assert all("cannot be copied or pickled: save its shard_state()" in text for text in copies) and len(copies) == 4
