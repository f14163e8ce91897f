"""Inside a rank in chapter 07: a network of which each of two ranks makes its own layers, and trains them.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from weakref import ref

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.grading.drivers import LR, Moments, from_rank_0
from parallel_lab.grading.rank_side import Case, change_first_arrival, name


def uneven_batches(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Inputs and targets of `rows[i]` rows in batch i, and a weight and a bias for each layer; rank 0's count."""
    widths = case["widths"]

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    xs, ys = ([drawn(rows, width) for rows in case["rows"]] for width in (widths[0], widths[-1]))
    sizes = list(pairwise(widths))
    weights = [each for width, out in sizes for each in (drawn(out, width) / width**0.5, drawn(out))]
    return xs, ys, weights


def layers_of(case: Case, rank: int) -> range:
    """The numbers of the layers that `rank` has."""
    return range(case["cut"]) if rank == 0 else range(case["cut"], len(case["widths"]) - 1)


def split_steps(fn: Callable, case: Case, *inputs: list[Tensor]) -> dict:
    """`fn(make_layer, widths, cut)` returns `step(x, y)`, which runs once for each batch; SGD follows each.

    The result's `held` has [moment, layer, bytes] of what is held before a step. With `graded="loss"` no gradient is
    looked at, and nothing is updated.
    """
    note, made = Moments(case, seen := {}), defaultdict(list)
    xs, ys, weights = (from_rank_0(tensors) for tensors in inputs)
    note.begin()
    step = fn(_maker(case, weights, made), case["widths"], case["cut"])
    if not callable(step):
        raise TypeError(f"split_network returned {name(step)}: expected the function step(x, y)")
    change_first_arrival(case)
    for k, (x, y) in enumerate(zip(xs, ys, strict=True)):
        note("step")
        loss = step(x, y)
        note("step_over")
        if dist.get_rank():
            seen[f"step {k}: its loss"] = loss.item() if isinstance(loss, Tensor) and loss.numel() == 1 else loss
        for i in layers_of(case, dist.get_rank()):
            found = _take_gradients(made[i], 0.0 if case.get("graded") == "loss" else LR)
            if case.get("graded") != "loss":
                seen |= {f"step {k}: layer {i}'s gradient of {kind}": grad for kind, grad in found.items()}
        loss = found = None  # so that nothing of ours is held in the next step
    return seen | {"held": note.samples}


def _maker(case: Case, weights: list[Tensor], made: dict[int, list[ref]]) -> Callable[[int], nn.Module]:
    """What makes layers, and notes in `made` which, without keeping them alive."""

    def make_layer(i: int) -> nn.Module:
        """Layer `i` with its initial weights, from `widths[i]` to `widths[i + 1]` features, float64."""
        linear = nn.Linear(*case["widths"][i : i + 2], dtype=torch.float64, device=weights[0].device)
        linear.weight.data, linear.bias.data = (weights[place].clone() for place in (2 * i, 2 * i + 1))
        layer = nn.Sequential(linear, nn.Tanh())
        made[i].append(ref(layer))
        return layer

    return make_layer


def _take_gradients(made: list[ref], lr: float) -> dict[str, Tensor | None]:
    """The gradients of the copy of a layer that has some; each copy that is alive is updated, and loses its own."""
    found: dict[str, Tensor | None] = {"weight": None, "bias": None}
    for layer in filter(None, (each() for each in made)):
        for kind, parameter in zip(found, layer.parameters(), strict=True):
            if parameter.grad is not None:
                found[kind], parameter.grad = parameter.grad.clone(), None
                parameter.data.sub_(found[kind], alpha=lr)
    return found
