"""`accumulated_step`: who reduces too often, keeps too much or takes another mean fails with its own message."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

by_value(__name__)
NAME = "accumulated_step"
SOLUTION = solutions(NAME)


class Sums:
    """The solution in pieces: this rank's part of each parameter's gradient, summed so far."""

    def __init__(self, model):
        self.params, self.sums = list(model.parameters()), {}

    def reduce(self, p):
        self.sums[p] = self.sums.get(p, 0) + SOLUTION["scattered"](p.grad)
        p.grad = None

    def step(self, lr, count):
        for p in self.params:
            SOLUTION["step_of_part"](p, -lr * self.sums[p] / count)


def backward(model, batches, after=lambda: None):
    for x, y in batches:
        F.mse_loss(model(x), y).backward()
        after()


def reduced_once(model, batches, lr, reduce_each):
    """Never reduces each, whatever is asked."""
    SOLUTION[NAME](model, batches, lr, False)


def reduced_after_backward(model, batches, lr, reduce_each):
    """Without hooks: a whole gradient stands there when backward returns."""
    sums = Sums(model)

    def reduce_all():
        for p in sums.params:
            sums.reduce(p)

    backward(model, batches, reduce_all if reduce_each else lambda: None)
    if not reduce_each:
        reduce_all()
    sums.step(lr, len(batches) * dist.get_world_size())


def always_reduced(model, batches, lr, reduce_each):
    SOLUTION[NAME](model, batches, lr, True)


def mean_over_ranks_alone(model, batches, lr, reduce_each):
    SOLUTION[NAME](model, batches, lr * len(batches), reduce_each)


def as_one_batch(model, batches, lr, reduce_each):
    """All microbatches at once: the same gradient, and all activations."""
    xs, ys = zip(*batches, strict=True)
    SOLUTION[NAME](model, [(torch.cat(xs), torch.cat(ys))], lr, reduce_each)


def by_all_reduce(model, batches, lr, reduce_each):
    """The ranks step all elements, as data parallelism does."""
    backward(model, batches)
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.data -= lr * p.grad / (len(batches) * dist.get_world_size())
        p.grad = None


CHEATS = [  # (answer, the test that sees through it, what it says)
    (mean_over_ranks_alone, 0, "at 1 rank: rank 0, after step 0: parameter 0: element"),
    (as_one_batch, 0, "rank 0 called the model 1 times in a step; expected 2, once per microbatch"),
    (by_all_reduce, 1, "rank 0 called all_reduce"),
    (always_reduced, 1, "rank 0 sent 101 kB in step 0, one reduce-scatter and one all-gather send 50.7 kB"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def in_one_vector(model, batches, lr, reduce_each):
    """Not a cheat: one reduce-scatter for all gradients, unless each is to go as soon as it is complete."""
    if reduce_each:
        return SOLUTION[NAME](model, batches, lr, True)
    n, rank, params = dist.get_world_size(), dist.get_rank(), list(model.parameters())
    backward(model, batches)
    part = SOLUTION["scattered"](torch.cat([p.grad.flatten() for p in params])) / (n * len(batches))
    flat = torch.cat([p.detach().flatten() for p in params])
    size = len(flat)
    flat = F.pad(flat, (0, -size % n))
    dist.all_gather_into_tensor(flat, flat.chunk(n)[rank] - lr * part)
    for p, new in zip(params, flat[:size].split([p.numel() for p in params]), strict=True):
        p.data.copy_(new.view_as(p))
        p.grad = None
    return None


def test_another_right_answer_passes():
    assert_passes(NAME, in_one_vector)


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (reduced_once, r"between two microbatches holds [\d.]+ kB, 1/n of the gradients is 29.3 kB"),
    (
        reduced_after_backward,
        r"in the backward of layer [12] holds [\d.]+ kB, its part and two layers' gradients are 46.2 kB",
    ),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])
