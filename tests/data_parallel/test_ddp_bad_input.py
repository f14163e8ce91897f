"""Bad input ends in an error that names the rank that caused it and says what to do; nothing is lost.

Most cases run one after another in one launch: the rank at fault catches its error, and then joins the barrier in which
the others wait for it, so that they go on too.
"""

import copy
import io
import pickle
import re

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from parallel_lab import RankFailed, launch
from parallel_lab.data_parallel import DDP, ShardedSampler, average_gradients, clip_grad_norm_


def failure(fn, *args, ranks=3):
    with pytest.raises(RankFailed) as failed:
        launch(fn, *args, ranks=ranks)
    return failed.value


def says(text, pattern):
    assert re.search(pattern, str(text), re.DOTALL), str(text)


def told(fn):
    """What `fn` says when it refuses."""
    try:
        fn()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def pair(first, second, dtype=torch.float32):
    return nn.ModuleDict({"a": nn.Linear(2, first, dtype=dtype), "b": nn.Linear(2, second)})


def different(kind, odd, group=None):
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
    DDP(model, **settings, group=group)


DIFFERENT = {
    "shape": r"shape of the parameter 'b.weight' is \(4, 2\) here and \(3, 2\) there",
    "dtype": "dtype of the parameter 'a.weight' is torch.float64 here and torch.float32 there",
    "order": "the parameter 'b.weight' stands where it has the parameter 'a.weight'",
    "lacks": "it lacks the parameter 'b.(weight|bias)'",
    "extra": "its parameter 'c.(weight|bias)' is not there",
    "frozen": "requires_grad of the parameter 'b.weight' is False here and True there",
    "tied": "'b.weight' is a.weight here and b.weight there",
    "buffer": "its buffer 'steps' is not there",
    "setting": "value of the setting 'bucket_bytes' is 17 here and 26214400 there",
}


def all_differences():
    """For each kind and rank at odds, what this rank is told; with two ranks the second is at odds."""
    rank, messages, two = dist.get_rank(), {}, dist.new_group([0, 1])
    cases = [(kind, odd, dist.group.WORLD) for kind in DIFFERENT for odd in (0, 2)]
    for kind, odd, group in [*cases, ("shape", 1, two)]:
        if group is two and rank == 2:
            continue
        messages[kind, odd] = told(lambda kind=kind, odd=odd, group=group: different(kind, odd, group))
        if rank == odd:
            dist.barrier(group)
    return messages


def test_the_rank_with_another_model_is_told_what_differs():
    for rank, messages in enumerate(launch(all_differences, ranks=3).results):
        for (kind, odd), message in messages.items():
            if rank == odd:
                other = 1 if odd == 0 else 0
                says(message, rf"ValueError: rank {odd} does not have the model of rank {other}: .*{DIFFERENT[kind]}")
            else:
                assert message == f"ValueError: rank {rank} cannot go on: another rank has another model"


def test_the_launch_names_the_rank_with_another_model():
    failed = failure(different, "shape", 2)
    assert (failed.rank, failed.cause) == (2, "ValueError")
    assert list(failed.failures) == [2], "the others wait"


def not_finite(value, group):
    """The rank at fault frees the others. What was said, and whether the weights are as they were."""
    odd = group.size() - 1
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    net = DDP(model, bucket_bytes=1, group=group)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    if group.rank() == odd:
        spoil = model[1].weight.register_hook(lambda g: g * torch.tensor([1.0, value, 1.0]))
    message = told(lambda: (net(torch.ones(2, 3)).sum().backward(), optimizer.step()))
    if group.rank() == odd:
        dist.barrier(group)
        spoil.remove()
    same = all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    optimizer.zero_grad()
    net(torch.ones(2, 3)).sum().backward()
    return message, same, all(p.grad.isfinite().all() for p in model.parameters())


def all_not_finite():
    groups = {n: dist.new_group(range(n)) for n in (1, 2, 3)}
    values = float("nan"), float("inf")
    return {(n, v): not_finite(v, groups[n]) for n in groups for v in values if dist.get_rank() < n}


def test_a_gradient_that_is_not_finite():
    for rank, cases in enumerate(launch(all_not_finite, ranks=3).results):
        for (n, _), (message, same, good) in cases.items():
            assert same, "the weights are as they were"
            assert good, "the next pass is right"
            if rank == n - 1:
                says(message, f"ValueError: rank {rank}: the gradient of 1.weight is NaN or infinite")
            else:
                says(message, f"ValueError: rank {rank} cannot go on: another rank refused")


def nan_hook(group, flat):
    flat.fill_(float("nan"))
    return dist.all_reduce(flat, group=group, async_op=True)


def forgetful(group, flat):
    dist.all_reduce(flat, group=group)


def short(group, flat):
    future = torch.futures.Future()
    future.set_result(flat[:1].clone())
    return future


def backward(net, x=None):
    net(torch.ones(1, 2) if x is None else x).square().sum().backward()


def twice():
    loss = DDP(nn.Linear(2, 1))(torch.ones(1, 2)).sum()
    loss.backward(retain_graph=True)
    loss.backward()


def around():
    DDP(model := nn.Linear(2, 1))
    backward(model)


def twice_in_no_sync():
    net = DDP(nn.Linear(2, 1))
    with net.no_sync():
        loss = net(torch.ones(1, 2)).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()


def unchecked():
    net = DDP(nn.Linear(2, 1), check_finite=False)
    (net(torch.ones(1, 2)).sum() * float("nan")).backward()
    assert net.module.weight.grad.isnan().all()


class Reentrant(nn.Linear):
    """Runs itself twice under the old kind of checkpointing, whose backward passes are nested."""

    def forward(self, x):
        return checkpoint(super().forward, checkpoint(super().forward, x, use_reentrant=True), use_reentrant=True)


GOOD = {"without sync, a second backward is fine": twice_in_no_sync, "the check can be turned off": unchecked}
CASES = {
    **{name: (fn, "nothing was raised") for name, fn in GOOD.items()},
    "a function": (lambda: DDP(lambda x: x), "TypeError: rank 1: DDP wraps a torch.nn.Module, got function"),
    "a word": (lambda: DDP(nn.Linear(1, 1), hook="mean"), "TypeError: rank 1: hook is 'mean': expected a function"),
    "no parameter": (lambda: DDP(nn.ReLU()), "ValueError: rank 1: no parameter requires a gradient"),
    "frozen": (lambda: DDP(nn.Linear(1, 1).requires_grad_(False)), "rank 1: no parameter requires a gradient"),
    "sparse": (lambda: DDP(nn.Embedding(3, 2, sparse=True)), "ValueError: rank 1: .*use sparse=False"),
    "no bytes": (lambda: DDP(nn.Linear(1, 1), bucket_bytes=0), "ValueError: bucket_bytes=0: expected at least 1"),
    "half a byte": (
        lambda: DDP(nn.Linear(1, 1), bucket_bytes=2.5),
        r"TypeError: bucket_bytes=2.5 \(float\): expected a whole",
    ),
    "nothing to average": (lambda: average_gradients(nn.ReLU()), "no parameter of this model requires a gradient"),
    "a group without its name": (
        lambda: DDP(nn.Linear(1, 1), dist.group.WORLD),
        r"TypeError: DDP got .*: write DDP\(model, .*group",
    ),
    "average": (lambda: average_gradients(nn.Linear(1, 1), None), r"write average_gradients\(model, mb=.*group"),
    "clip": (lambda: clip_grad_norm_([], 1.0, None), r"write clip_grad_norm_\(model_or_params, max_norm, group"),
    "sampler": (lambda: ShardedSampler(5, None), r"write ShardedSampler\(size, .*group"),
    "deepcopy": (lambda: copy.deepcopy(DDP(nn.Linear(1, 1))), "TypeError: copy or pickle its .module"),
    "pickle": (lambda: pickle.dumps(DDP(nn.Linear(1, 1))), "TypeError: copy or pickle its .module"),
    "torch.save": (lambda: torch.save(DDP(nn.Linear(1, 1)), io.BytesIO()), "TypeError: copy or pickle its .module"),
    "backward twice": (twice, "rank 1: this backward pass has no forward .*twice after one forward: .*no_sync"),
    "going around": (around, "rank 1: .*Either the wrapped model was called itself"),
    "a gradient of a gradient": (
        lambda: DDP(nn.Linear(2, 1))(torch.ones(1, 2)).square().sum().backward(create_graph=True),
        r"ValueError: rank 1: backward\(create_graph=True\) asks for .* torch.autograd.grad\(",
    ),
    "a hook that makes NaN": (
        lambda: backward(DDP(nn.Linear(2, 2), hook=nan_hook)),
        "mean gradient that the hook",
    ),
    "a hook that returns nothing": (
        lambda: backward(DDP(nn.Linear(2, 1), hook=forgetful)),
        r"TypeError: rank 1: the gradient hook forgetful returned None: expected a handle with wait\(\)",
    ),
    "another size": (lambda: backward(DDP(nn.Linear(2, 1), hook=short)), "gave 1 elements for a bucket of 3"),
    "reentrant": (
        lambda: backward(DDP(Reentrant(2, 2)), torch.ones(1, 2, requires_grad=True)),
        "came twice in one backward pass; with activation checkpointing, pass use_reentrant=False",
    ),
}


@pytest.fixture(scope="module")
def heard():
    def fn():
        messages = {name: told(case) for name, (case, _) in CASES.items()}
        net = DDP(nn.Linear(2, 1))  # after all of that, a pass is right
        net(torch.full((1, 2), 1.0 + dist.get_rank())).sum().backward()
        assert net.module.weight.grad.tolist() == [[1.5, 1.5]]
        return messages

    return launch(fn, ranks=2, timeout=60)[1]


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_what_a_rank_is_told(heard, name):
    says(heard[name], CASES[name][1])


def test_returning_a_ddp_from_a_rank():
    with pytest.raises(Exception, match=r"copy or pickle its \.module"):
        launch(lambda: DDP(nn.Linear(1, 1)), ranks=1)
