"""What each schedule holds and sends, measured, against its closed form; and what recomputation costs."""

import sys
import time

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from chains import SCHEDULES, WIDTH, chain, data, own, squares
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from parallel_lab import launch, pipeline
from parallel_lab.pipeline import Stage, step
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.trace.memory import SavedTensors, live_bytes

cloudpickle.register_pickle_by_value(sys.modules[__name__])

P, M = 4, 12  # m is 3p, so that GPipe cannot be taken for 1F1B
ROWS = 8
ONE = ROWS * WIDTH * 8  # bytes of an activation in float64

# How many activations a rank holds at most, of stages as large as a p-th of the model: the closed forms.
PEAKS = {
    "gpipe": lambda r: M,
    "one_f_one_b": lambda r: min(P - r, M),
    "interleaved": lambda r: min(2 * (P - 1 - r) + (2 - 1) * P + 1, 2 * M),
    "looped_bfs": lambda r: 2 * M,
    "zb_h1": lambda r: P,
    "zb_h2": lambda r: min(2 * P - 1, M),
    "zb_v": lambda r: 2 * P,
    "dualpipe_v": lambda r: 2 * P + 1,
}
CUTS = {"interleaved": 2 * P - 1, "looped_bfs": 2 * P - 1, "zb_v": 2 * (P - 1), "dualpipe_v": 2 * (P - 1)}


class Square(nn.Module):
    """Saves its input for the backward pass, ONE bytes, until W."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(WIDTH, dtype=torch.float64))

    def forward(self, x):
        return x @ self.weight


def held(name):
    """The peak of what autograd saved for stages that save one activation each."""
    plan = SCHEDULES[name](P, M)
    modules = [Square() for _ in pipeline.placement(plan)]
    mine = own(plan, modules)
    inputs = [torch.ones(ROWS, WIDTH, dtype=torch.float64) for _ in range(M)]
    with SavedTensors(nn.ModuleList(mine.values())) as saved:
        step(plan, mine, inputs, inputs, lambda y, _: y.sum())
    assert saved.bytes == 0
    return saved.peak_bytes


@pytest.mark.parametrize("name", SCHEDULES)
def test_peak_messages_and_bytes_are_the_closed_forms(name):
    run = launch(held, name, ranks=P)
    plan = SCHEDULES[name](P, M)
    assert list(run) == [ONE * PEAKS[name](rank) for rank in range(P)]
    assert list(run) == [simulate(plan, PassCost(activation_bytes=ONE)).peak_bytes(rank) for rank in range(P)]
    sent = [s for s in run.trace.spans if s.kind == "send" and s.phase in ("forward", "backward")]
    assert len(sent) == 2 * CUTS.get(name, P - 1) * M
    assert sum(s.sent_bytes for s in sent) == ONE * len(sent)


def test_half_a_backward_keeps_only_what_the_weights_need():
    stage = Stage(nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4)))
    x = torch.randn(8, 4, requires_grad=True)
    with SavedTensors(stage.module) as saved:
        (y,) = stage.forward(0, [x], split=True)
        whole = saved.bytes
        (gradient,) = stage.backward_input(0, [torch.ones_like(y)])
        left = saved.bytes
        norm, (first, *_) = stage.module[2], stage.module.parameters()
        assert norm.weight.grad is not None and first.grad is None
        stage.backward_weight(0)
    assert left == x.nbytes + 8 * 16 * 4  # the inputs of the two linears; not those of GELU and norm
    assert whole > left and saved.bytes == 0
    stage.module.zero_grad()
    other = x.detach().requires_grad_()
    stage.module(other).sum().backward()
    torch.testing.assert_close(gradient, other.grad)


def test_products_are_computed_once():
    """B, and I and W together, have the same matrix products."""

    class Counts(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.products = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.products += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
            return function(*args, **kwargs or {})

    stage, counted = Stage(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))), []
    for split in (False, True):
        x = torch.ones(3, 4, requires_grad=True)
        (y,) = stage.forward(0, [x], split=split)
        with Counts() as whole:
            if not split:
                stage.backward(0, [torch.ones_like(y)])
        with Counts() as inputs:
            if split:
                stage.backward_input(0, [torch.ones_like(y)])
        with Counts() as weights:
            if split:
                stage.backward_weight(0)
        counted.append((whole.products, inputs.products, weights.products))
    assert counted == [(4, 0, 0), (0, 2, 2)]


class Noisy(nn.Module):
    """A linear and dropout; counts its forward passes and keeps their masks."""

    def __init__(self):
        super().__init__()
        self.linear, self.masks = nn.Linear(WIDTH, WIDTH, dtype=torch.float64), []

    def forward(self, x):
        ones = nn.functional.dropout(torch.ones_like(x), 0.5)
        self.masks.append(ones)
        return self.linear(x).tanh() * ones


def again(name):
    """Steps without and with recomputation: the difference of the gradients, forwards a microbatch, equal masks."""
    plan = SCHEDULES[name](2, 4)
    stages, (inputs, targets) = len(pipeline.placement(plan)), data(4)
    gradients, peaks = [], []
    for recompute in (False, True):
        torch.manual_seed(7)
        modules = [nn.Sequential(*[Noisy() for _ in range(4)]) for _ in range(stages)]
        mine = own(plan, modules)
        with SavedTensors(nn.ModuleList(mine.values())) as saved:
            step(plan, {s: Stage(each, recompute=recompute) for s, each in mine.items()}, inputs, targets, squares)
        peaks.append(saved.peak_bytes)
        gradients.append([p.grad for each in mine.values() for p in each.parameters()])
    layers = [layer for module in mine.values() for layer in module]
    pairs = [(a, b) for layer in layers for a, b in _twice(layer.masks, plan, dist.get_rank())]
    gaps = max(float((a - b).abs().max()) for a, b in zip(*gradients, strict=True))
    return gaps, {len(layer.masks) for layer in layers}, sum(torch.equal(a, b) for a, b in pairs), len(pairs), peaks


def _twice(masks, plan, rank):
    """The masks of the first and the second forward of each microbatch of one stage."""
    stage = min(pipeline.stages_of(plan, rank))
    order = [op for op in plan.rows[rank] if op.part == stage and op.kind in "FBI"]
    seen = {}
    for op, mask in zip(order, masks, strict=True):
        seen.setdefault(op.mb, []).append(mask)
    return seen.values()


@pytest.mark.parametrize("name", ["gpipe", "one_f_one_b", "zb_h1", "zb_h2"])
def test_recomputation_runs_the_forward_once_more_with_the_same_masks(name):
    for rank, (gaps, forwards, equal, pairs, (plain, recomputed)) in enumerate(launch(again, name, ranks=2)):
        assert gaps == 0
        assert forwards == {2 * 4}
        assert equal == pairs == 4 * 4
        assert recomputed < plain if rank == 0 and name in ("gpipe", "one_f_one_b") else recomputed <= plain


def leftovers():
    """Bytes of tensors that live after a step beyond those before it."""
    plan = pipeline.zb_h1(2, 4)
    module = chain(2)[dist.get_rank()]
    inputs, targets = data(4)
    step(plan, module, inputs, targets, squares)
    before = live_bytes()
    for _ in range(3):
        step(plan, module, inputs, targets, squares)
    return _settled_bytes(before) - before


def _settled_bytes(most):
    """What lives once it is `most` or less: on a busy machine a thread lets the last message go a little later."""
    until_s = time.monotonic() + 10
    while (live := live_bytes()) > most and time.monotonic() < until_s:
        time.sleep(0.01)
    return live


def test_nothing_stays_behind_a_step():
    # What an earlier run left to the rank may go meanwhile, so fewer bytes are no fault.
    assert max(launch(leftovers, ranks=2)) <= 0
