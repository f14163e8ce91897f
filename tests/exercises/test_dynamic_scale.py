"""`dynamic_scale`: divided twice, clipped before, zeros instead of a skip, a scale that only falls, a rank alone."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "dynamic_scale"


def answer(divide=1, clip_first=False, skip=True, falls=True, grows=True, agree=True, clips=True):
    """A right answer, or one with a part of it done in another way."""

    def changed(params, backward, clip, optimizer, steps, scale, interval):
        clean = 0
        for _ in range(steps):
            optimizer.zero_grad()
            backward(scale)
            if clip_first:
                clip()
            for p in params:
                p.grad /= scale
            finite = torch.tensor(all(bool(p.grad.isfinite().all()) for p in params), dtype=torch.int32)
            if agree:
                dist.all_reduce(finite, dist.ReduceOp.MIN)
            if not finite and not skip:
                for p in params:
                    p.grad.zero_()
            if finite or not skip:
                if clips and not clip_first:
                    clip()
                for p in params if divide == 2 else ():
                    p.grad /= scale
                optimizer.step()
            clean = clean + 1 if finite else 0
            if not finite and falls:
                scale *= 0.5
            elif grows and clean == interval:
                scale, clean = 2 * scale, 0

    return changed


CHEATS = [  # (answer, the test that sees through it, what it says)
    (answer(divide=2), 0, "the gradient of the step taken as number 0: .*every element is 0.0009766 times.*\n.*, once"),
    (answer(skip=False), 1, "the steps that were taken: .*\n.*not even with zeros, for it has momentum"),
    (answer(falls=False), 2, r"the scale of step 1 is 1.04858e\+06, expected 524288"),
    (answer(grows=False), 3, "the scale of step .*\n.*doubles after `interval` clean steps"),
    (answer(agree=False), 4, r"at 2 ranks: a rank that overflowed left its step out alone"),
    (answer(clip_first=True), 6, r"the norm that clip\(\) saw, step taken as number 0 is .*\n.*which comes first"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def by_a_norm(params, backward, clip, optimizer, steps, scale, interval):
    """Not a cheat: one all-reduce of the squared norm, which is finite where all gradients are."""
    clean = 0
    for _ in range(steps):
        backward(torch.tensor(scale))
        squares = sum(p.grad.div_(scale).square().sum() for p in params)
        dist.all_reduce(squares)
        clean = clean + 1 if squares.isfinite() else 0
        if clean:
            clip()
            optimizer.step()
        scale = scale / 2 if not clean else scale * 2 if clean % interval == 0 else scale
        clean %= interval
        optimizer.zero_grad()


def test_another_right_answer_passes():
    assert_passes(NAME, by_a_norm)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, answer(falls=False, grows=False, agree=False, clips=False), "the scale of step 1 is")
    assert_ends_a_step(NAME, 2, answer(agree=False, clips=False), "left its step out alone")
    assert_ends_a_step(NAME, 3, answer(clips=False), r"clip\(\) was not called")
