"""`gathered_layer`: who holds more than shards, or holds it too long, fails with its own message."""

import io
import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gathered_unit import CALL, GATHER, Unit, scatter, shard_of
from grading import assert_found_out

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "gathered_layer"


class Saved(torch.autograd.Function):
    """All-gather forward, reduce-scatter backward; autograd sees the gathered weight."""

    @staticmethod
    def forward(ctx, shard):
        ctx.save_for_backward(shard)
        return GATHER(shard)

    @staticmethod
    def backward(ctx, of_flat):
        return scatter(of_flat.contiguous(), *ctx.saved_tensors)


def left_to_autograd(layer):
    class Naive(Unit):
        def forward(self, x):
            return CALL(self.recipe[0], Saved.apply(self.shard), x)

    return Naive(layer)


def never_freed(layer):
    """Gathered once a step, and kept."""

    class Keeping(Unit):
        def __init__(self, layer):
            super().__init__(layer, gather=self.once)
            self.flat = None

        def once(self, shard):
            self.flat = GATHER(shard) if self.flat is None else self.flat
            return self.flat.detach()

    return Keeping(layer)


def kept_until_backward(layer):
    class Keeping(Unit):
        def __init__(self, layer):
            super().__init__(layer, gather=self.every_other_time)
            self.flat = None

        def every_other_time(self, shard):
            flat, self.flat = self.flat, None
            if flat is None:
                flat = self.flat = GATHER(shard)
            return flat.detach()

    return Keeping(layer)


def slice_of_the_whole(layer):
    return Unit(layer, shard=shard_of(layer))


WHOLE = []


def copy_in_a_global(layer):
    """A whole copy computes; shards are gathered and thrown away."""
    WHOLE.append([p.detach().clone() for p in layer.parameters()])
    return Unit(layer)


def copy_in_numpy(layer):
    unit = Unit(layer)
    unit.hidden = [GATHER(unit.shard).numpy().copy()]
    return unit


def copy_in_lists(layer):
    unit = Unit(layer)
    unit.hidden = GATHER(unit.shard).tolist()
    return unit


def copy_in_a_buffer(layer):
    """In a global that is older than the answer."""
    unit = Unit(layer)
    torch.save(GATHER(unit.shard), file := io.BytesIO())
    WHOLE.append(file.getvalue())
    return unit


def copy_in_a_file(layer):
    torch.save(layer, "/tmp/parallel-lab-cheat.pt")
    return Unit(layer)


def layer_not_emptied(layer):
    return Unit(layer, keep=True)


UNITS, GATHERED = [], {}


def all_at_once(layer):
    """The first layer of each pass gathers all; the last one frees them."""

    class Together(Unit):
        def __init__(self, layer):
            super().__init__(layer, gather=self.from_all)
            UNITS.append(self)

        def from_all(self, shard):
            if not GATHERED:
                GATHERED.update({id(unit): GATHER(unit.shard) for unit in UNITS})
            last = len(GATHERED) == 1
            flat = GATHERED.pop(id(self)) if last else GATHERED[id(self)]
            self.count = getattr(self, "count", 0) + 1
            if sum(unit.count for unit in UNITS if hasattr(unit, "count")) % len(UNITS) == 0:
                GATHERED.clear()
            return flat.detach().clone() if last else flat.detach()

    return Together(layer)


def layer_not_used(layer):
    """Right in every number, with a matrix product of its own."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, shard, shape):
            ctx.save_for_backward(x, shard)
            ctx.shape = shape
            weight, bias = Own.parts(shard, shape)
            return x @ weight.T + bias

        @staticmethod
        def parts(shard, shape):
            count = shape[0] * shape[1]
            flat = GATHER(shard)
            return flat[:count].view(shape), flat[count : count + shape[0]]

        @staticmethod
        def backward(ctx, of_output):
            x, shard = ctx.saved_tensors
            weight, _ = Own.parts(shard, ctx.shape)
            flat = torch.cat([(of_output.T @ x).flatten(), of_output.sum(0)])
            flat = F.pad(flat, (0, len(shard) * dist.get_world_size() - len(flat)))
            return of_output @ weight, scatter(flat, shard), None

    class Linear(Unit):
        def forward(self, x):
            return Own.apply(x, self.shard, self.recipe[0].weight.shape)

    return Linear(layer)


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "left to autograd": (left_to_autograd, "held", "after forward and before backward holds"),
    "kept until backward": (kept_until_backward, "held", "after forward and before backward holds"),
    "a slice of the whole": (slice_of_the_whole, "held", "at 4 ranks: rank 0 between two steps holds"),
    "a copy in a global": (copy_in_a_global, "held", "at 4 ranks: rank 0 between two steps holds"),
    "a copy in NumPy": (copy_in_numpy, "held", "of it lie outside tensors, in objects of class ndarray"),
    "a copy in lists": (copy_in_lists, "held", "of it lie outside tensors, in objects of class float"),
    "a copy in a buffer": (copy_in_a_buffer, "held", "of it lie outside tensors, in objects of class bytes"),
    "a copy in a file": (copy_in_a_file, "held", "SideDoor: open('/tmp/parallel-lab-cheat.pt')"),
    "the layer is not emptied": (layer_not_emptied, "held", "at 4 ranks: rank 0 between two steps holds"),
    "all layers at once": (all_at_once, "held", "at 4 ranks: rank 0 in the forward of layer 0 holds"),
    "the layer is not used": (layer_not_used, "held", "the layer was never called"),
    "never freed": (never_freed, "numbers", "at 1 rank: rank 0, step 1: output 0: element"),
}


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
