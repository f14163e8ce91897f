"""The tasks of chapter 08: a pair of layers, a loss and a block, each cut over the ranks.

As in `drivers`, a driver gives learner code what it works on, and observes; what it should see stands in `whole`. Ranks
import this module.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from parallel_lab.grading.drivers import LR, Moments, copies, from_rank_0, mark
from parallel_lab.grading.rank_side import REDUCING, Case, change_first_arrival
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.gpt import Block

# A driver's marks round each pass; the first one of each stands in messages, before the number of the step.
FORWARD, BACKWARD = ("the forward of step", "forward_over"), ("the backward of step", "backward_over")
IGNORED = -100
REPLICATED = ("norm.weight", "norm.bias", "out.bias", "down.bias")  # of a block; every rank has them whole


def _normal(shapes: Iterable[tuple[int, ...]], generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def cut(name: str, tensor: Tensor, ranks: int, rank: int) -> Tensor:
    """One rank's part of a parameter: columns of `down` and `out`, rows of other linears, the rest whole."""
    if name.endswith(REPLICATED):
        return tensor
    return tensor.chunk(ranks, dim=1 if name.endswith(("down.weight", "out.weight")) else 0)[rank]


class Pair(nn.Module):
    """What is cut in two: a linear, a GELU and a linear."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(case["width"], case["hidden"]), nn.Linear(case["hidden"], case["width"])


def model_of(case: Case, weights: Iterable[Tensor] = ()) -> nn.Module:
    """A float64 `Pair`, or a GPT's block where the case has `heads`, with copies of `weights`."""
    if heads := case.get("heads"):
        model = Block(GPTConfig(width=case["width"], heads=heads, hidden=case["hidden"]))
    else:
        model = Pair(case)
    for parameter, weight in zip(model.parameters(), weights, strict=False):
        parameter.data = weight.clone()
    return model.double()


def batches(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Inputs and gradients of outputs of `shape`, one of each a step, and weights with large biases."""
    xs, of_outputs = (_normal([case["shape"]] * case["steps"], generator) for _ in range(2))
    weights = _normal([p.shape for p in model_of(case).parameters()], generator)
    return xs, of_outputs, [weight / (weight.shape[1] ** 0.5 if weight.dim() > 1 else 1) for weight in weights]


def cut_pair(fn: Callable, case: Case, xs, of_outputs, weights) -> dict:
    """`fn(up, down)`, and steps of SGD on rank 0's batches; with `forward` only the outputs of one step."""
    xs, of_outputs = from_rank_0(xs), from_rank_0(of_outputs)
    note = Moments(case, seen := {})
    pair = cast(Pair, model_of(case, from_rank_0(weights)))
    names, layers = [name for name, _ in pair.named_parameters()], [pair.up, pair.down]
    del pair
    part = fn(layers.pop(0), layers.pop())
    return _trained(part, case, xs, of_outputs, names, note, seen)


def cut_block(fn: Callable, case: Case, xs, of_outputs, weights) -> dict:
    """`fn(block)`, and steps of SGD, each rank with its part of the sequence; `after_backward()` ends each backward."""
    note = Moments(case, seen := {})
    blocks = [model_of(case, from_rank_0(weights))]
    names = [name for name, _ in blocks[0].named_parameters()]
    return _trained(fn(blocks.pop()), case, xs, of_outputs, names, note, seen)


def _trained(part: nn.Module, case: Case, xs, of_outputs, names: list[str], note: Moments, seen: dict) -> dict:
    parameters = list(part.parameters())
    if len(parameters) != len(names):
        raise ValueError(f"parameters() has {len(parameters)} tensors; expected {len(names)}: {', '.join(names)}")
    change_first_arrival(case, REDUCING)
    for step, (x, of_output) in enumerate(zip(xs, of_outputs, strict=True)):
        x.requires_grad_()
        note("step")
        mark(FORWARD[0])
        output = part(x)
        mark(FORWARD[1])
        seen[f"step {step}: the output"] = output.detach().clone()
        if case.get("forward"):
            break
        mark(BACKWARD[0])
        output.backward(of_output)
        getattr(part, "after_backward", lambda: None)()
        mark(BACKWARD[1])
        note("step_over")
        seen[f"step {step}: the gradient of the input"] = x.grad
        seen |= _named(f"step {step}: its part of the gradient of", names, [p.grad for p in parameters])
        step_down(parameters)
    return seen | _named("at the end: its part of", names, copies(parameters)) | {"held": note.samples}


def step_down(parameters: Iterable[nn.Parameter]) -> None:
    """A step of SGD; torch's own loads a second's worth of modules in each rank."""
    for p in parameters:
        if p.grad is not None:
            p.data -= LR * p.grad
        p.grad = None


def _named(what: str, names: list[str], tensors: Iterable[Tensor | None]) -> dict:
    return {f"{what} {name}": tensor for name, tensor in zip(names, tensors, strict=True)}


def logits_and_targets(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's columns of the logits, (tokens, its share of the vocabulary), and targets; rank 0's are meant."""
    share = len(torch.arange(case["vocab"]).tensor_split(case.ranks)[rank])
    (logits,) = _normal([(case["tokens"], share)], generator)
    targets = torch.randint(case["vocab"], (case["tokens"],), generator=generator)
    if case.get("ignored"):
        targets[::3] = IGNORED
    return case["size"] * logits, targets


def lose(fn: Callable, case: Case, logits: Tensor, targets: Tensor) -> dict:
    """`fn(logits, targets, vocab)`, a scalar, and the backward pass of half of it."""
    logits.requires_grad_()
    (targets,) = from_rank_0([targets])
    change_first_arrival(case, REDUCING)
    mark(FORWARD[0])
    loss = fn(logits, targets, case["vocab"])
    mark(FORWARD[1])
    seen = {"the loss": loss.detach().clone()}
    if not case.get("forward"):
        mark(BACKWARD[0])
        (loss / 2).backward()
        mark(BACKWARD[1])
        seen["the gradient of its logits"] = logits.grad
    return seen
