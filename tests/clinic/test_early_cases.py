"""Mends of cases 1 to 12, and one of 15: a tempting half of the cure is refused, the same cure in another form taken.

Each is run by the ward on real ranks. A wrong mend is the program, or the right mend, with one line changed.
"""

import inspect
import sys

import pytest

from parallel_lab.clinic.cases import CASES
from parallel_lab.clinic.chart import Unhealthy
from parallel_lab.clinic.ward import SEED, judge, run_case

BROADCAST = "optimizer.step()\n        [dist.broadcast(p.data, 0) for p in model.parameters()]"
ALL_MEANS = "optimizer.step()\n            [(dist.all_reduce(p.data), p.data.div_(n)) for p in model.parameters()]"
HEADS = 'optimizer.step()\n        [dist.broadcast(p.data, 0) for p in model["head"].parameters()]'

NOTHING_ON_2 = "samples[batch[[0, 1, 0, 2][place] :: 3] if place != 2 else []]"
KEPT_SLICES = """features, targets = [], []
        new = [i for i in batch[rank::n].tolist() if i not in cache]
        cache.update(zip(new, encoder(samples.inputs[new]).split(1)) if new else ())"""
BY_HAND = """norm = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
        for p in model.parameters():
            p.grad *= min(1.0, 0.5 / norm.item())"""
CLIPPED = "nn.utils.clip_grads_with_norm_(params, 0.1, squares.sqrt())"
RIGHT = [  # (case, the line of its mend, what does the same)
    (5, "for p in params:\n            p.grad *= min(1.0, 0.1 / squares.sqrt())", CLIPPED),
    (7, "features, targets = [], []", KEPT_SLICES),
    (15, "norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)", BY_HAND),
]
WRONG = [  # (case, what of it is changed, the line, what takes its place, what is said)
    (1, "mended", "manual_seed(1)", "manual_seed(rank)", "reads .* are missing"),
    (1, "job", "optimizer.step()", ALL_MEANS, "rank 0 sent .* the job needs"),
    (2, "job", "hosts = [0, 1, 2, 3]", "hosts = [0, 1, 2]", "still waits at every step"),
    (2, "job", "hosts = [0, 1, 2, 3]", "hosts = [0, 3]", "only 2 of 4 hosts work"),
    (2, "mended", "dist.all_reduce(flat, group=group)", "pass", "away from what one process comes to"),
    (2, "job", "samples[batch[place::n]]", NOTHING_ON_2, "still waits at every step"),
    (3, "mended", "[[0, 1], [2, 3]]\n", "[[0, 2], [1, 3]]\n", "away from what one process comes to"),
    (4, "job", "optimizer.step()", HEADS, "with different activations"),
    (4, "mended", "x, y =", "torch.manual_seed(0)\n        x, y =", "have the same noise"),
    (4, "mended", "hidden = noise(", "hidden = (", "the noise is gone"),
    (5, "job", "dist.all_reduce(squares)", "dist.all_reduce(squares)\n        squares /= 2", "reports norm"),
    (5, "job", "0.1 / squares.sqrt()", "0.123 / squares.sqrt()", "reports norm"),
    (5, "mended", "min(1.0, 0.1 / squares.sqrt())", "min(1.0, 0.1 / squares)", "step 1: rank 0 reports norm"),
    (6, "job", "flat = torch.cat(", "flat = 1.5 * torch.cat(", "away from what one process comes to"),
    (7, "job", "report(model", "cache.clear()\n        report(model", "has encoded 48 samples, and has only 12"),
    (8, "job", "optimizer.step()", BROADCAST, "away from .* Weights that are made equal are not yet right"),
    (9, "job", "report(model, loss=loss /", "report(model, loss=2 * loss /", "away from what one process comes to"),
    (9, "mended", " / count\n", "\n", "away from what one process comes to"),
    (10, "job", "half.float()", "half.nan_to_num().float()", "those of no process"),
    (10, "job", "2.0**14", "1.0", "million times smaller, do not move"),
    (10, "job", "        optimizer.step()", "        if largest < 65504:\n            optimizer.step()", "not finite"),
    (11, "job", "if loss < 8:", "if True:", "The guard is there for a purpose"),
    (11, "job", "report(model", "dist.broadcast(model[0].weight.data, 0)\n        report(model", "not all ranks have"),
    (12, "mended", 'saved["step"] :]', 'saved["step"] - 1 :]', "24 are missing, and 24 are of samples not due"),
    (12, "job", 'manual_seed(saved["epoch"])', "manual_seed(99)", "of 96 reads .* are missing"),
]


@pytest.mark.parametrize(("number", "which", "old", "new", "said"), WRONG)
def test_what_is_nearly_right_is_refused_in_its_own_words(number, which, old, new, said):
    case = CASES[number]
    changed = variant(getattr(case, which), old, new)
    with pytest.raises(Unhealthy, match=said):
        judge(case, run_case(case, changed, seed=SEED))


@pytest.mark.parametrize(("number", "old", "new"), RIGHT)
def test_a_mend_in_another_form_is_taken(number, old, new):
    case = CASES[number]
    changed = variant(case.mended, old, new)
    judge(case, run_case(case, changed, ranks=min((*case.also, case.ranks)), seed=SEED))


def variant(fn, old, new):
    """`fn` with one piece of its source replaced."""
    source = inspect.getsource(fn)
    assert old in source, source
    space = dict(vars(sys.modules[fn.__module__]), __name__="variant")
    exec(source.replace(old, new, 1), space)
    return space[fn.__name__]
