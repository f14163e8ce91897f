"""What may cross from stage to stage, what a loss may be, and weights that stand in two stages."""

import sys
from itertools import pairwise

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from chains import SCHEDULES, alone, chain, data, gap, own, squares
from torch import nn

from parallel_lab import launch, pipeline
from parallel_lab.model import GPT, GPTConfig
from parallel_lab.pipeline import step, sum_tied, tie

cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAMES = ["one_f_one_b", "zb_h1", "zb_v"]


class First(nn.Module):
    """Tokens in; out come values of another width, a skip with a gradient, whole numbers, and a detached tensor."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 5)

    def forward(self, tokens, weights):
        x = self.embedding(tokens) * weights
        return x, x.sum(1), tokens, x.detach() + 1


class Middle(nn.Module):
    """Passes on three of the four as they came."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 7)

    def forward(self, x, skip, tokens, still):
        return self.linear(x).relu_(), skip, tokens, still


class Last(nn.Module):
    """Uses all of them; `gain` is used without a call of a module of its own."""

    def __init__(self, to=None):
        super().__init__()
        self.linear, self.gain = nn.Linear(7, 5), nn.Parameter(torch.ones(5, 5))

    def forward(self, x, skip, tokens, still):
        return self.linear(x).sum(1) @ self.gain + skip * tokens.sum(1, keepdim=True) + still.sum(1)


def mixed(name):
    """Tuples, skips, whole numbers and detached tensors, of lengths that differ from microbatch to microbatch."""
    plan = SCHEDULES[name](2 if name == "zb_v" else 3, 4)
    stages = len(pipeline.placement(plan))
    torch.manual_seed(0)
    modules = [First(), *[Chained(Middle(), nn.Linear(7, 5)) for _ in range(stages - 3)], Middle(), Last()]
    modules = [module.double() for module in modules]
    mine = own(plan, modules)
    dice = torch.Generator().manual_seed(2)
    tokens = [torch.randint(0, 9, (1 + mb % 2, 2 + mb), generator=dice) for mb in range(4)]
    inputs = [(t, torch.rand(*t.shape, 1, generator=dice, dtype=torch.float64)) for t in tokens]
    targets = [torch.randn(len(t), 5, generator=dice, dtype=torch.float64) for t in tokens]
    expected, reference = alone(modules, inputs, targets)
    losses = [step(plan, mine, inputs, targets, squares).item() - expected for _ in range(2)]
    return max(map(abs, losses)), gap(mine, reference, scale=2)


class Chained(nn.Module):
    def __init__(self, first, last):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, *inputs):
        x, *others = self.first(*inputs)
        return self.last(x), *others


@pytest.mark.parametrize("name", NAMES)
def test_tuples_skips_and_tensors_without_a_gradient(name):
    run = launch(mixed, name, ranks=2 if name == "zb_v" else 3)
    assert max(max(gaps) for gaps in run) < 1e-12
    sent = [s for s in run.trace.spans if s.kind == "send" and s.phase in ("forward", "backward")]
    # In two steps four tensors of four microbatches cross two cuts, at the turn of the V none; two gradients come back.
    assert sum(s.phase == "forward" for s in sent) == 2 * 4 * 4 * 2
    assert sum(s.phase == "backward" for s in sent) == 2 * 4 * 2 * 2


def cross_entropy(logits, target):
    return nn.functional.cross_entropy(logits, target, reduction="sum")


def few_targets(name):
    """Targets to ignore, a microbatch of which all are ignored, and one without targets."""
    plan = SCHEDULES[name](2, 4)
    modules = chain(len(pipeline.placement(plan)))
    mine, (inputs, _) = own(plan, modules), data(4)
    targets = [torch.tensor([1]), torch.tensor([-100, 2]), torch.full((3,), -100), torch.tensor([5])]
    expected, reference = alone(modules, inputs, targets, cross_entropy, count=3)
    loss = step(plan, mine, inputs, targets, cross_entropy)
    first = abs(loss.item() - expected), gap(mine, reference)
    for module in mine.values():
        module.zero_grad()
    targets[2] = None
    loss = step(plan, mine, inputs, targets, cross_entropy)
    return *first, abs(loss.item() - expected), gap(mine, reference)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_divided_by_the_number_of_targets_that_count(name):
    assert max(max(gaps) for gaps in launch(few_targets, name, ranks=2)) < 1e-12


def frozen():
    """A first stage that is not trained: no gradient comes back to it. Then it is thawed."""
    plan = pipeline.one_f_one_b(2, 3)
    modules = chain(2)
    mine, (inputs, targets) = own(plan, modules), data(3)
    gaps = []
    for trained in (False, True):
        modules[0].requires_grad_(trained)
        pipeline.forget(modules[0])
        _, reference = alone(modules, inputs, targets)
        step(plan, mine, inputs, targets, squares)
        gaps.append(gap(mine, reference))
        for module in mine.values():
            module.zero_grad()
    return gaps


def test_a_frozen_stage_gets_no_gradient():
    run = launch(frozen, ranks=2)
    assert max(max(gaps) for gaps in run) < 1e-12
    assert sum(s.kind == "send" and s.phase == "backward" for s in run.trace.of(1)) == 3  # of the second step


def text(config, seed=3):
    dice = torch.Generator().manual_seed(seed)
    pieces = [torch.randint(0, config.vocab, (2, config.seq + 1), generator=dice) for _ in range(4)]
    return [piece[:, :-1] for piece in pieces], [piece[:, 1:] for piece in pieces]


def tokens_loss(logits, targets):
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def tied(name, shared):
    """Three steps of a GPT whose embedding is its output layer, with a copy of it in the first and the last stage."""
    config = GPTConfig(vocab=11, seq=5, layers=2, heads=2, width=8)
    plan = SCHEDULES[name](2, 4)
    stages = len(pipeline.placement(plan))

    def parts(model):
        layers = list(model.layers())
        cuts = [0, *[len(layers) * s // stages for s in range(1, stages)], len(layers)]
        return [nn.Sequential(*layers[a:b]) for a, b in pairwise(cuts)]

    torch.manual_seed(dist.get_rank())  # copies start unequal
    own_model, reference = GPT(config).double(), GPT(config).double()
    whole = reference.state_dict()
    for value in whole.values():
        dist.broadcast(value, 0)
    reference.load_state_dict(whole)
    own_model.load_state_dict(whole)
    weight = own_model.get_parameter("embedding.tokens.weight")
    if dist.get_rank() and not shared:
        weight.data += 1
    modules = parts(own_model)
    mine = own(plan, modules)
    copies = [weight] if {0, stages - 1} & mine.keys() else []
    bond = tie(*copies)
    parameters = list(dict.fromkeys(p for module in mine.values() for p in module.parameters()))
    ours, theirs = (torch.optim.AdamW(each, lr=1e-2) for each in (parameters, reference.parameters()))
    inputs, targets = text(config)
    for _ in range(3):
        step(plan, mine, inputs, targets, tokens_loss)
        sum_tied(bond)
        tokens_loss(reference(torch.cat(inputs)), torch.cat(targets)).div(40).backward()
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
    names = {id(p): name for name, p in own_model.named_parameters()}
    return max(float((p - reference.get_parameter(names[id(p)])).abs().max()) for p in parameters)


@pytest.mark.parametrize(("name", "shared"), [("one_f_one_b", False), ("zb_h1", False), ("zb_v", True)])
def test_a_tied_embedding_is_summed_over_its_copies(name, shared):
    assert max(launch(tied, name, shared, ranks=2)) < 1e-10


def test_ties_in_pipelines_of_different_ranks_one_after_another():
    """A rank between the two copies is in no group of theirs, and still finds the next group that it is in."""

    def fn():
        outer = tie(*[nn.Parameter(torch.ones(2))] * (dist.get_rank() != 1))
        pairs = [dist.new_group([0, 1]), dist.new_group([2])]
        inner = tie(nn.Parameter(torch.ones(2)), group=pairs[dist.get_rank() == 2]) if dist.get_rank() < 2 else None
        return outer.group is not None, inner and inner.group.size()

    assert launch(fn, ranks=3, timeout=30).results == [(True, 2), (False, 2), (True, None)]
