"""What each rank really holds under stages 1 and 2, by live tensors: the formula after a step, a bound within it."""

import gc
import time

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import Zero1, Zero2, average_gradients, flat_vector, formulas
from parallel_lab.trace import recorder
from parallel_lab.trace.memory import held_bytes, live_bytes

WIDTH, LAYERS = 24, 6  # 600 elements a layer: even shards at 1, 2, 3 and 4 ranks, so nothing is padded
PSI = LAYERS * WIDTH * (WIDTH + 1)
LAYER = 4 * WIDTH * (WIDTH + 1)  # bytes
CASES = [(technique, mixed) for technique in ("zero1", "zero2") for mixed in (False, True)]


def chain(dtype=torch.float32):
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]).to(dtype)


def start():
    """The live bytes now. What exists already is left out of later counts: walking all of torch takes long."""
    gc.collect()
    gc.freeze()
    return live_bytes()


def at_rest(expected, group):
    """The live bytes, once they are `expected` or the backend's threads have had time to let go of what they sent."""
    dist.barrier(group)
    until_s = time.monotonic() + 20
    while (held := live_bytes()) > expected and time.monotonic() < until_s:
        time.sleep(1e-3)
    return held


class Training:
    """A model and its optimizer under one technique, with one way to take a step, and the peaks of its steps."""

    def __init__(self, technique, mixed, group):
        self.technique, self.group, self.peaks = technique, group, []
        self.half = torch.bfloat16 if mixed else torch.float32
        own = {"master_dtype": torch.float32 if mixed else None, "group": group, "lr": 0.01}
        if technique == "zero1":
            self.model = chain(self.half)
            self.stepper = Zero1(self.model.parameters(), torch.optim.AdamW, **own)
        else:
            self.model = self.stepper = Zero2(chain(self.half), torch.optim.AdamW, bucket_bytes=600, **own)
        self.inner = self.stepper.optimizer
        self.inner.register_step_pre_hook(lambda *_: self.peaks.append(live_bytes()))

    def step(self):
        self.model(torch.ones(1, WIDTH, dtype=self.half)).float().sum().backward()
        if self.technique == "zero1":
            average_gradients(self.model, group=self.group)
        self.stepper.step()

    def step_counts(self):
        """Bytes of Adam's counts, which the formulas leave out."""
        return sum(4 for state in self.inner.state.values() if state)


def held(technique, mixed, group, expected):
    """Bytes after two steps, and at the start of the optimizer's step, beyond what there was before."""
    before = start()
    training = Training(technique, mixed, group)
    for _ in range(2):
        training.step()
    other = before + training.step_counts()
    return at_rest(other + expected, group) - other, max(training.peaks) - other


def test_holds_what_its_formula_says():
    def fn():
        found = []
        for n in (1, 2, 3, 4):
            group = dist.new_group(range(n))
            for technique, mixed in CASES if dist.get_rank() < n else ():
                expected = formulas.held_bytes(technique, PSI, n, mixed)
                found.append((technique, mixed, n, expected, *held(technique, mixed, group, expected)))
        return found

    for rank, cases in enumerate(launch(fn, ranks=4).results):
        assert len(cases) == 4 * (4 - rank)
        for _, mixed, n, expected, rest, peak in cases:
            assert rest == expected
            # Within the step: the gradients once more, in the dtype of the master copies; and a layer that the
            # backend's threads have not let go of yet.
            assert peak <= expected + mixed * 4 * PSI / n + LAYER


def test_the_kinds_and_what_the_backward_pass_adds():
    """Zero2 adds three buckets at most, and one gradient on its way there."""

    def fn():
        kinds = []
        for technique in ("zero1", "zero2"):
            training = Training(technique, False, dist.group.WORLD)
            training.step()
            outer = training.stepper if technique == "zero1" else training.inner
            kinds.append((held_bytes(training.model, outer), training.step_counts()))
        before, seen = start(), []
        training = Training("zero2", False, dist.group.WORLD)
        training.step()
        training.model.zero_grad()
        for layer in training.model.module:
            layer.register_full_backward_hook(lambda *_: seen.append(live_bytes()))
        training.step()
        sampled = max(s.bytes for s in recorder().samples if s.kind == "buckets")
        return kinds, max(seen) - before - training.step_counts(), sampled

    whole, half, activations = 4 * PSI, 2 * PSI, 4 * WIDTH * 4 * LAYERS
    most = formulas.held_bytes("zero2", PSI, 2) + 4 * LAYER + activations
    assert most < formulas.held_bytes("zero2", PSI, 2) + 4 * PSI, "the bound proves nothing"
    for kinds, peak, sampled in launch(fn, ranks=2).results:
        for (found, counts), gradients in zip(kinds, (whole, half), strict=True):
            assert found["parameters"] == whole and found["gradients"] == gradients
            assert found["optimizer_state"] - counts == whole  # two moments of half of the parameters
        assert peak <= most and LAYER <= sampled <= 3 * LAYER


def test_an_unsharded_optimizer_is_caught():
    def fn(broken):
        if broken:  # every rank owns and steps everything
            flat_vector.owned = lambda sizes, n, rank: ((i, 0, size, 0) for i, size in enumerate(sizes))
        return held("zero1", False, dist.group.WORLD, expected[broken])[0]

    expected = {False: formulas.held_bytes("zero1", PSI, 2), True: formulas.held_bytes("ddp", PSI, 2)}
    assert expected[False] < expected[True]
    for broken in expected:
        assert launch(fn, broken, ranks=2).results == [expected[broken]] * 2
