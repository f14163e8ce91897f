"""Experts placed by load on real ranks: the model is the same, the loads are as said, and copies lower the bound."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.expert_parallel import expert_parallel, placement, reduce_gradients
from parallel_lab.expert_parallel.balance import mixtures
from parallel_lab.model import reference
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.systems.balance import Device, delays, experts

pytestmark = pytest.mark.usefixtures("by_value")
CONFIG = GPTConfig(vocab=19, seq=16, layers=1, heads=2, width=8, experts=12, active_experts=2)
LOAD = [100, 5, 5, 40, 5, 5, 30, 10]


def model():
    """A router that likes some experts more."""
    net = reference.build(CONFIG, seed=2, dtype=torch.float64)
    with torch.no_grad():
        mixtures(net)[0].bias += torch.linspace(0.2, 0, CONFIG.experts).double()
    return net


def tokens():
    dice = torch.Generator().manual_seed(1)
    drawn = torch.randint(19, (12, 17), generator=dice)
    return drawn[:, :-1], drawn[:, 1:]


def step(ranks):
    """The load of a step, and a step of the model placed by it, at each number of ranks."""
    groups, found = [dist.new_group(list(range(n))) for n in ranks], []
    for n, group in zip(ranks, groups, strict=True):
        if dist.get_rank() >= n:
            continue
        mine = slice(group.rank() * 12 // n, (group.rank() + 1) * 12 // n)
        x, y = (part[mine] for part in tokens())
        net = model()
        cross_entropy(net(x), y)
        (load,) = experts.observed(net, group=group)
        again = experts.observed(net, group=group)
        placed = placement(load, n)
        net, device = model(), Device(group=group)
        expert_parallel(net, placement=placed, group=group)
        experts.on_device(net, device, 1)
        cross_entropy(net(x), y).backward()
        reduce_gradients(net, group=group)
        grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        found.append((load, again, placed, device.units, grads))
    return found


def test_placed_by_load_the_model_has_the_gradient_of_one_process_at_1_to_4_ranks():
    worlds = (1, 2, 3, 4)
    run = launch(step, worlds, ranks=4, faults=delays((0, 0, 0, 0.001)))
    net, (x, y) = model(), tokens()
    cross_entropy(net(x), y).backward()
    whole = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    load = mixtures(net)[0].load.tolist()
    for place, n in enumerate(worlds):
        for rank in range(n):
            seen, again, placed, units, grads = run[rank][place - (4 - len(run[rank]))]
            assert seen == load and not any(again[0]), "the load of the global batch, on every rank"
            assert units == experts.rank_loads(placed, load)[rank], "a token is a unit on the emulated device"
            for name, gradient in grads.items():
                torch.testing.assert_close(gradient, whole[name], rtol=1e-9, atol=1e-12)
        if n > 1:
            usual = max(experts.rank_loads(experts.by_number(12, n), load))
            assert max(experts.rank_loads(placement(load, n), load)) < usual


def test_copies_lower_the_bound_of_the_heaviest_expert():
    whole = experts.rank_loads(placement(LOAD, 4), LOAD)
    assert max(whole) >= max(LOAD) == 100 and sum(whole) == sum(LOAD) == 200
    assert experts.replicas(LOAD, 12) == [4, 1, 1, 2, 1, 1, 1, 1]
    placed = experts.place_copies(LOAD, 4, 12)
    loads = experts.rank_loads(placed, LOAD)
    assert sum(loads) == pytest.approx(200) and max(loads) <= 60 and all(len(own) == 3 for own in placed)
    assert experts.rank_loads(experts.by_number(8, 4), LOAD) == [105, 45, 10, 40]
    with pytest.raises(ValueError, match="divide"):
        experts.place_copies(LOAD, 3, 10)
    with pytest.raises(ValueError, match="places"):
        experts.replicas(LOAD, 7)


def test_what_has_to_travel():
    assert experts.arriving([[0, 1], [2, 3]], [[0, 2], [1, 3]]) == 2 and experts.arriving([[0], [1]], [[0], [1]]) == 0
