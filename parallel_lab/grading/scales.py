"""The task of chapter 12 on loss scaling: gradients that overflow in float16 where the scale is too large.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module, and the kernel
has what is expected from it. Gradients are drawn and not computed: then float64 shows to the last digits by what they
were divided. What float16 cannot hold becomes infinite or 0.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from parallel_lab.grading.lab import Outcome
from parallel_lab.grading.rank_side import Case

LARGEST, LEAST = 65_504.0, 2.0**-24  # of float16
GROWTH, BACKOFF = 2.0, 0.5
TAKEN, SCALES, GRADIENTS = "the steps that were taken", "the scale of step", "the gradient of the step taken as number"
CLIPPED, WEIGHTS = "the norm that clip() saw, step taken as number", "the weights at the end"


def gradients_of_steps(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's weights, and a gradient for each step, of each shape; a rank holds a part of the model of its own.

    `broken` has pairs of (rank, step) in which one number is infinite, or NaN in every other step.
    """
    weights, *steps = [
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in case["shapes"]]
        for _ in range(1 + case["steps"])
    ]
    for who, step in case["broken"]:
        if who == rank:
            steps[step][-1].view(-1)[step % 4] = torch.nan if step % 2 else torch.inf
    return weights, steps


class Training:
    """One rank's part: what learner code calls, and what was seen of it."""

    def __init__(self, case: Case, weights: Sequence[Tensor], gradients: Sequence[Sequence[Tensor]]) -> None:
        self.params = [nn.Parameter(weight.clone()) for weight in weights]
        self.sgd = torch.optim.SGD(self.params, lr=0.1, momentum=0.9)  # whose momentum also a step of zeros changes
        self.gradients, self.max_norm = list(gradients), case["max_norm"]
        self.seen: dict = {name: [] for name in (TAKEN, SCALES, CLIPPED, GRADIENTS)}
        self.clipped: float | str = "clip() was not called"

    def backward(self, scale: float) -> None:
        """The gradients of the next step times `scale`, as float16 holds them, are added to `.grad`."""
        number = len(self.seen[SCALES])
        self.seen[SCALES].append(float(scale))
        self.clipped = "clip() was not called"
        if number >= len(self.gradients):
            raise ValueError(f"backward() was called {number + 1} times for {len(self.gradients)} steps")
        for p, gradient in zip(self.params, self.gradients[number], strict=True):
            scaled = gradient * float(scale)
            scaled[scaled.abs() > LARGEST] *= torch.inf
            scaled[scaled.abs() < LEAST / 2] = 0.0
            p.grad = scaled if p.grad is None else p.grad + scaled

    def clip(self) -> None:
        """Scales the gradients down to `max_norm`, where their norm is larger."""
        norm = nn.utils.clip_grad_norm_(self.params, self.max_norm)
        self.clipped = float(norm)

    def step(self) -> None:
        """The optimizer's step, and what it steps with."""
        self.seen[TAKEN].append(len(self.seen[SCALES]) - 1)
        self.seen[CLIPPED].append(self.clipped)
        flat = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in self.params]
        self.seen[GRADIENTS].append(torch.cat([each.flatten() for each in flat]))
        self.sgd.step()

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        self.sgd.zero_grad()

    def over(self) -> dict:
        """What was seen."""
        return self.seen | {WEIGHTS: [p.detach().clone() for p in self.params]}


class Optimizer:
    """What learner code gets of it."""

    def __init__(self, training: Training) -> None:
        self.step, self.zero_grad = training.step, training.zero_grad


def train_scaled(fn: Callable, case: Case, weights: list[Tensor], gradients: list[list[Tensor]]) -> dict:
    """`fn(params, backward, clip, optimizer, steps, scale, interval)`."""
    mine = Training(case, weights, gradients)
    fn(mine.params, mine.backward, mine.clip, Optimizer(mine), case["steps"], case["scale"], case["interval"])
    return mine.over()


def scaled_as_one(outcome: Outcome) -> list[dict]:
    """Of `train_scaled`, what `looks` names. With the mistake `alone` each rank decides by itself."""
    sides = [Training(outcome.case, *inputs) for inputs in outcome.inputs]
    for together in [[side] for side in sides] if outcome.case.get("mistake") == "alone" else [sides]:
        _run(together, outcome.case)
    return [{name: side.over()[name] for name in outcome.case["looks"]} for side in sides]


def _run(sides: list[Training], case: Case) -> None:
    scale, clean = case["scale"], 0
    for _ in range(case["steps"]):
        for side in sides:
            side.backward(scale)
        finite = all(bool(p.grad.isfinite().all()) for side in sides for p in side.params if p.grad is not None)
        for side in sides if finite else ():
            for p in side.params:
                p.grad = None if p.grad is None else p.grad / scale
            side.clip()
            side.step()
        for side in sides:
            side.zero_grad()
        clean = clean + 1 if finite else 0
        scale *= BACKOFF if not finite else GROWTH if clean == case["interval"] else 1.0
        clean %= case["interval"]
