"""`sharded_optimizer`: who keeps more than 1/n of the state fails with its own message."""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from flat_optimizer import Flat, gather_parts
from grading import assert_found_out

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "sharded_optimizer"
HELD = "beside parameters and gradients, holds"


def unsharded(params, optimizer_class, **options):
    return optimizer_class(params, **options)


class Broadcasting:
    """Steps with `inner`, if this rank has one; parameter k then comes from rank `owner(k)`."""

    def __init__(self, params, inner, owner):
        self.params, self.inner, self.owner = params, inner, owner

    def zero_grad(self):
        for p in self.params:
            p.grad = None

    def step(self):
        if self.inner:
            self.inner.step()
        for k, p in enumerate(self.params):
            dist.broadcast(p.data, self.owner(k))


def rank_0_alone(params, optimizer_class, **options):
    """Rank 0 has all the state and does all the work."""
    params = list(params)
    inner = optimizer_class(params, **options) if dist.get_rank() == 0 else None
    return Broadcasting(params, inner, lambda k: 0)


def gathers_for_show(params, optimizer_class, **options):
    """The whole state on every rank, beside a shard that is sent round for nothing."""
    params = list(params)
    whole = optimizer_class(params, **options)
    shown = Flat(params, optimizer_class, {"lr": 0.0})

    class Both:
        def zero_grad(self):
            whole.zero_grad()

        def step(self):
            whole.step()
            gather_parts(shown.shard, shown.n)

    return Both()


def whole_tensors(params, optimizer_class, **options):
    """Every n-th tensor is this rank's; what PyTorch's does, but for its greedy order."""
    n, rank, params = dist.get_world_size(), dist.get_rank(), list(params)
    own = params[rank::n]
    return Broadcasting(params, optimizer_class(own, **options) if own else None, lambda k: k % n)


KEPT = {}


def copy_in_a_global(params, optimizer_class, **options):
    params = list(params)
    KEPT["all"] = torch.cat([p.detach().flatten() for p in params])
    return Flat(params, optimizer_class, options)


def keeps_gathered(params, optimizer_class, **options):
    return Flat(params, optimizer_class, options, keep=True)


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "unsharded": (unsharded, "held", f"at 3 ranks: rank 0, {HELD} 193 kB"),
    "rank 0 alone": (rank_0_alone, "held", f"at 3 ranks: rank 0, {HELD} 193 kB"),
    "gathered for show": (gathers_for_show, "held", f"at 3 ranks: rank 0, {HELD} "),
    "whole tensors": (whole_tensors, "held", f"at 3 ranks: rank 1, {HELD} 192 kB"),
    "a copy in a global": (copy_in_a_global, "held", f"at 3 ranks: rank 0, {HELD} 225 kB"),
    "what was gathered is kept": (keeps_gathered, "held", f"at 3 ranks: rank 0, {HELD} 225 kB"),
}


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
