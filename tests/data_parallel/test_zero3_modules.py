"""Stage 3 with modules of all sorts: evaluated, used twice, recomputed, unused, with buffers, in sequences."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.data_parallel import Zero3
from parallel_lab.model import GPTConfig, build, loss
from parallel_lab.model.data import text_batches

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=3)
TOLERANCE = 1e-12  # float64


def test_evaluation_keeps_nothing_and_training_goes_on_after_it():
    def fn():
        model = Zero3(build(CONFIG, dtype=torch.float64))
        x, y = next(iter(text_batches(CONFIG.seq, 4, 1)))
        with torch.no_grad():
            first = loss(model(x), y).item()
        held = sum(u.held_bytes for u in model.units)
        loss(model(x), y)  # a forward pass without its backward pass
        out = loss(model(x), y)
        out.backward()
        norms = sum(g.square().sum().item() for g in model.gradient_shards())
        return first, held, out.item(), norms

    for first, held, second, norms in launch(fn, ranks=1).results:
        expected = build(CONFIG, dtype=torch.float64)
        x, y = next(iter(text_batches(CONFIG.seq, 4, 1)))
        loss(expected(x), y).backward()
        assert first == pytest.approx(second) and held == 0
        assert norms == pytest.approx(sum(p.grad.square().sum().item() for p in expected.parameters()))


def test_a_unit_used_twice_and_one_recomputed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            x = self.layers[0](x).tanh()
            x = checkpoint(self.layers[1], x, use_reentrant=False).tanh()
            return self.layers[2](self.layers[0](x)).tanh()

    def fn():
        torch.manual_seed(0)
        plain = Net().double()
        x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4)
        plain(x).sum().backward()
        expected = [p.grad.clone() for p in plain.parameters()]
        model = Zero3(plain)
        for _ in range(2):
            model.zero_grad()
            model(x).sum().backward()
        found = []
        for f in model._flats():
            vector = torch.empty(f.layout.numel, dtype=torch.float64)
            dist.all_gather_into_tensor(vector, f.shard.grad)
            found += f.layout.views(vector)
        return max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))

    assert max(launch(fn, ranks=2).results) < TOLERANCE


def test_unused_parameters_count_as_zeros():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x) if dist.get_rank() or not self.apart else self.unused(x)

    def fn(differ):
        middle = Half()
        middle.apart = differ
        model = Zero3(nn.Sequential(nn.Linear(3, 3), middle, nn.Linear(3, 3)).double())
        model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
        f = model.units[1].flats[0]
        whole = torch.empty(f.layout.numel, dtype=torch.float64)
        dist.all_gather_into_tensor(whole, f.shard.grad)
        used = {slot.name: bool(view.any()) for slot, view in zip(f.layout.slots, f.layout.views(whole), strict=True)}
        return used["1.used.bias"], used["1.unused.bias"], sum(u.held_bytes for u in model.units)

    assert launch(fn, False, ranks=2).results == [(True, False, 0)] * 2
    assert launch(fn, True, ranks=2).results == [(True, True, 0)] * 2  # each rank uses other parameters of the unit


def test_buffers_stay_replicated_and_are_those_of_rank_0():
    def fn():
        norm = nn.BatchNorm1d(3, momentum=0.0)
        model = Zero3(nn.Sequential(nn.Linear(3, 3), norm))
        norm.running_mean.fill_(5.0 + dist.get_rank())
        model(torch.randn(4, 3)).sum().backward()
        return norm.running_mean.unique().tolist(), list(model.full_state_dict())

    run = launch(fn, ranks=2)
    names = list(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).state_dict())
    assert run.results == [([5.0], names)] * 2


def test_sequences_are_cut_per_child_and_the_rest_is_the_root():
    def fn():
        gpt, chain = Zero3(build(CONFIG)), Zero3(nn.Sequential(*[nn.Linear(7, 7) for _ in range(4)]))
        return [u.name for u in gpt.units], [u.name for u in chain.units], len(list(gpt.parameters()))

    assert launch(fn, ranks=2)[0] == (["blocks.0", "blocks.1", "blocks.2", "root"], ["0", "1", "2", "3"], 4)
