"""What one process gives where `cutting` cuts over ranks: the outputs, gradients and weights expected in chapter 08.

A setting of a case that names a usual mistake gives what that mistake gives.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from parallel_lab.grading.cutting import IGNORED, REPLICATED, Pair, cut, model_of, step_down
from parallel_lab.grading.lab import Outcome
from parallel_lab.model.gpt import Block


def _steps(outcome: Outcome, xs: list[Tensor], of_outputs: list[Tensor], run: Callable) -> list[dict]:
    """For each rank what `_trained` sees of `run(model, x, rank)`, but for what is cut of outputs and inputs."""
    case, n, right = outcome.case, outcome.ranks, [{} for _ in range(outcome.ranks)]
    model = model_of(case, outcome.inputs[0][2])
    for step, (x, of_output) in enumerate(zip(xs, of_outputs, strict=True)):
        x = x.clone().requires_grad_()
        output = run(model, x)
        output.backward(of_output)
        for rank, own in enumerate(right):
            own[f"step {step}: the output"] = output.detach()
            if case.get("forward"):
                continue
            own[f"step {step}: the gradient of the input"] = x.grad
            for name, p in model.named_parameters():
                own[f"step {step}: its part of the gradient of {name}"] = cut(name, cast(Tensor, p.grad), n, rank)
        if case.get("forward"):
            return right
        step_down(model.parameters())
    for rank, own in enumerate(right):
        own |= {
            f"at the end: its part of {name}": cut(name, p.detach(), n, rank) for name, p in model.named_parameters()
        }
    return right


def whole_pair(outcome: Outcome) -> list:
    """Of `cut_pair`. With `bias_each`, each rank adds the bias; with `only`, one rank's hidden part counts."""
    only, times = outcome.case.get("only"), outcome.ranks if outcome.case.get("bias_each") else 1

    def run(pair: Pair, x: Tensor) -> Tensor:
        hidden = F.gelu(pair.up(x))
        if only is not None:
            parts = [part * (rank == only) for rank, part in enumerate(hidden.chunk(outcome.ranks, 1))]
            hidden = torch.cat(parts, 1)
        return F.linear(hidden, pair.down.weight) + times * pair.down.bias

    xs, of_outputs, _ = outcome.inputs[0]
    return _steps(outcome, xs, of_outputs, run)


def whole_block(outcome: Outcome) -> list:
    """Of `cut_block`: the ranks' parts in their order are the sequence. With `bias_each`, each rank adds biases.

    With `cut_only`, what every rank has whole does not count, and so nothing after the first step.
    """
    times = outcome.ranks if outcome.case.get("bias_each") else 1

    def run(block: Block, x: Tensor) -> Tensor:
        x = x + block.attention(block.attention_norm(x)) + (times - 1) * cast(Tensor, block.attention.out.bias)
        return x + block.feed_forward(block.feed_forward_norm(x)) + (times - 1) * block.feed_forward.down.bias

    xs, of_outputs = (
        [torch.cat(parts, 1) for parts in zip(*(rank[place] for rank in outcome.inputs), strict=True)]
        for place in (0, 1)
    )
    right = _steps(outcome, xs, of_outputs, run)
    for rank, own in enumerate(right):
        for name in [name for name in own if name.endswith(("the output", "of the input"))]:
            own[name] = own[name].chunk(outcome.ranks, 1)[rank]
        if outcome.case.get("cut_only"):
            for name in [name for name in own if name.endswith(REPLICATED) or not name.startswith("step 0")]:
                del own[name]
    return right


def whole_loss(outcome: Outcome) -> list:
    """Of `lose`. Settings that are usual mistakes: `own_maximum`, `unmasked`, `counted`."""
    case, n = outcome.case, outcome.ranks
    shares = [logits.clone().requires_grad_() for logits, _ in outcome.inputs]
    targets = outcome.inputs[0][1]
    loss = F.cross_entropy(torch.cat(shares, 1), targets, ignore_index=IGNORED)
    (loss / 2).backward()
    losses = [loss.detach()] * n
    if case.get("counted"):
        losses = [loss.detach() * (targets != IGNORED).sum() / len(targets)] * n
    if case.get("unmasked"):
        losses = [loss.detach() + _of_others(outcome, shares)] * n
    if case.get("own_maximum"):
        losses = _with_own_maximum(outcome, [share.detach() for share in shares])
    return [
        {"the loss": own} | ({} if case.get("forward") else {"the gradient of its logits": share.grad})
        for own, share in zip(losses, shares, strict=True)
    ]


def _of_others(outcome: Outcome, shares: list[Tensor]) -> Tensor:
    """How much the loss is off where a rank counts its nearest column for the target of another rank."""
    targets, first, off = outcome.inputs[0][1], 0, torch.zeros(outcome.case["tokens"], dtype=torch.float64)
    for share in shares:
        column = (targets - first).clamp(0, share.shape[1] - 1)
        off -= share.detach().gather(1, column[:, None])[:, 0] * (targets - first != column)
        first += share.shape[1]
    return off.mean()


def _with_own_maximum(outcome: Outcome, shares: list[Tensor]) -> list[Tensor]:
    """The loss of each rank where it subtracts the largest of its own logits, and the sums are then added up."""
    targets = outcome.inputs[0][1]
    sums = torch.stack([(share - share.amax(1, keepdim=True)).exp().sum(1) for share in shares]).sum(0)
    of_target = torch.cat(shares, 1).gather(1, targets[:, None])[:, 0]
    return [(sums.log() + share.amax(1) - of_target).mean() for share in shares]
