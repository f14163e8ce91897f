"""A small GPT on 2 x 2 x 2 ranks whose step has a mistake: chapter 11's task to find it.

Each rank has its part of one of two stages: a block cut over two ranks of tp, with half of the sequence between its cut
parts, and the embedding or the head, which share a weight. Several microbatches go through; then the gradients are put
together, over tp, over the copies of the tied weight, over dp and over the microbatches. A `Fault` leaves one of these
out or does one too much. All of it is real: learner code sees the gradients that eight ranks are left with.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.cutting import REPLICATED, cut
from parallel_lab.grading.drivers import from_rank_0
from parallel_lab.grading.expect import each_rank
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.layouts import place
from parallel_lab.grading.rank_side import Case, name
from parallel_lab.grading.values import differ
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.gpt import GPT

CONFIG = GPTConfig(vocab=11, seq=4, layers=2, heads=2, width=8, mlp_ratio=2, tied=True)
SIZES = {"pp": 2, "dp": 2, "cp": 1, "tp": 2, "ep": 1}
TIED = "embedding.tokens.weight"
WITHOUT = "attention.key.bias"  # adds the same to all scores of a query: softmax does not see it, its gradient is zero
NORMS = ("attention_norm.weight", "attention_norm.bias", "feed_forward_norm.weight", "feed_forward_norm.bias")
SMALL = (*NORMS, "attention.out.bias", "feed_forward.down.bias")  # of a block, whole on each rank of tp
MATRICES = ("attention.query.weight", "attention.value.weight", "feed_forward.up.weight", "feed_forward.up.bias")
M, ROWS = 3, 4  # microbatches of a rank, and the rows of one, over both data ranks


class Fault(NamedTuple):
    """What is planted in a step: its kind, and in what.

    `partial`: not summed over tp. `averaged`: summed and divided by its ranks. `alone`: not averaged over dp, on one
    stage. `untied`: copies not added up. `undivided`: not divided by the microbatches, on one stage. `twice`: divided
    by the data ranks twice. `none`: nothing.
    """

    kind: str
    names: tuple[str, ...] = ()
    stage: int = -1

    def found(self) -> dict:
        """What is to be found of it."""
        names = self.names if self.stage < 0 else tuple(n for n in names_of(self.stage) if not n.endswith(WITHOUT))
        axis = {"partial": "tp", "alone": "dp", "untied": "pp"}.get(self.kind, "")
        factor = {"averaged": 1 / SIZES["tp"], "twice": 1 / SIZES["dp"], "undivided": float(M)}.get(self.kind, 1.0)
        return {"parameters": sorted(names), "factor": factor, "axis": axis}


def names_of(stage: int) -> list[str]:
    """The parameters of a stage, by their names in the whole model; the tied one is in both."""
    names = [each for each, _ in GPT(CONFIG).named_parameters()]
    ends = ("embedding.", f"blocks.{stage}.") if stage == 0 else (TIED, f"blocks.{stage}.", "head.")
    return [each for each in names if each.startswith(ends)]


def batches(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Tokens of all microbatches, weights of the whole model, and numbers to choose parameters by; rank 0's count."""
    tokens = torch.randint(CONFIG.vocab, (M, ROWS, CONFIG.seq + 1), generator=generator)
    shapes = [p.shape for p in GPT(CONFIG).parameters()]
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) / 2 for shape in shapes]
    return tokens, weights, torch.randint(1000, (6,), generator=generator)


def planted(numbers: Tensor) -> list[Fault]:
    """The faults of a run's steps."""
    one, other, third, block, fourth, stage = numbers.tolist()

    def of(names: tuple[str, ...], number: int, layer: int) -> str:
        return f"blocks.{layer % 2}.{names[number % len(names)]}"

    return [
        Fault("none"),
        Fault("partial", (of(NORMS, one, block),)),
        Fault("averaged", tuple({of(SMALL, other, block), of(SMALL, third, block + 1)})),
        Fault("alone", stage=1),
        Fault("untied", (TIED,)),
        Fault("undivided", stage=stage % 2),
        Fault("partial", (of(SMALL[-2:], third, block + 1),)),
        Fault("twice", (of(MATRICES, fourth, block),)),
        Fault("alone", stage=0),
    ]


class _Gather(torch.autograd.Function):
    """All parts of the sequence; of the gradient's sum this rank's part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _scattered(grads[0], ctx.group), None


class _Scatter(torch.autograd.Function):
    """This rank's part of the sequence, of the sum; the gradients of all parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _scattered(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _gathered(grads[0], ctx.group), None


def _gathered(x: Tensor, group: Any) -> Tensor:
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.cat(parts, 1)


def _scattered(x: Tensor, group: Any) -> Tensor:
    parts = [part.contiguous() for part in x.chunk(dist.get_world_size(group), 1)]
    dist.reduce_scatter(parts[dist.get_rank(group)], [part.clone() for part in parts], group=group)
    return parts[dist.get_rank(group)]


def _groups() -> dict[str, Any]:
    """This rank's groups of pp, dp and tp."""
    ranks, mine = torch.arange(8).view(2, 2, 2), {}
    for dim, axis in enumerate(("pp", "dp", "tp")):
        for row in ranks.movedim(dim, -1).reshape(-1, 2).tolist():
            group = dist.new_group(row)
            if dist.get_rank() in row:
                mine[axis] = group
    return mine


def _whole(weights: list[Tensor]) -> GPT:
    model = GPT(CONFIG).double()
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        parameter.data = weight.clone()
    return model


def _cut(model: GPT, at: dict[str, int], group: Any) -> GPT:
    """Its blocks cut over tp, entered by a gather behind each norm and left by a reduce-scatter before each bias."""
    for block in list(model.blocks):
        for each, p in block.named_parameters():
            p.data = cut(each, p.data, 2, at["tp"]).clone()
        for norm in (block.attention_norm, block.feed_forward_norm):  # pyright: ignore[reportAttributeAccessIssue]
            norm.register_forward_hook(lambda _, args, out: _Gather.apply(out, group))  # pyright: ignore
        for row in (block.attention.out, block.feed_forward.down):  # pyright: ignore[reportAttributeAccessIssue]
            row.forward = lambda x, row=row: _Scatter.apply(F.linear(x, row.weight), group) + row.bias  # pyright: ignore
    return model


def _local_gradients(model: GPT, tokens: Tensor, at: dict[str, int]) -> dict[str, Tensor]:
    """Forward and backward of all microbatches, one after another: what autograd leaves on this rank, by name."""
    peer = dist.get_rank() + (4 if at["pp"] == 0 else -4)
    for rows in tokens:
        rows = rows.chunk(SIZES["dp"])[at["dp"]]
        inputs, targets = rows[:, :-1], rows[:, 1:].chunk(2, 1)[at["tp"]]
        if at["pp"] == 0:
            x = model.blocks[0](model.embedding(inputs).chunk(2, 1)[at["tp"]])
            dist.send(x.detach().contiguous(), peer)
            of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
            dist.recv(of_x, peer)
            x.backward(of_x)
        else:
            x = torch.empty(len(rows), CONFIG.seq // 2, CONFIG.width, dtype=torch.float64)
            dist.recv(x, peer)
            logits = model.head(model.blocks[1](x.requires_grad_()))
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
            (loss / (len(rows) * CONFIG.seq)).backward()
            dist.send(x.grad.contiguous(), peer)  # pyright: ignore[reportOptionalMemberAccess]
    named = dict(model.named_parameters())
    return {each: named[each].grad for each in names_of(at["pp"])}  # pyright: ignore[reportReturnType]


def _put_together(local: dict[str, Tensor], fault: Fault, at: dict[str, int], groups: dict[str, Any]) -> dict:
    """The gradients that the optimizer would step with, `fault` among them."""
    done = {each: gradient.clone() for each, gradient in local.items()}
    here = fault.stage == at["pp"]
    for each, gradient in done.items():
        hit = each in fault.names
        whole = not each.startswith("blocks.") or each.endswith(REPLICATED)
        if whole and not (hit and fault.kind == "partial"):
            dist.all_reduce(gradient, group=groups["tp"])
            gradient /= SIZES["tp"] if hit and fault.kind == "averaged" else 1
        if each == TIED and fault.kind != "untied":
            dist.all_reduce(gradient, group=groups["pp"])
        if not (here and fault.kind == "alone"):
            dist.all_reduce(gradient, group=groups["dp"])
            gradient /= SIZES["dp"] * (SIZES["dp"] if hit and fault.kind == "twice" else 1)
        gradient /= 1 if here and fault.kind == "undivided" else M
    return done


def _right(model: GPT, tokens: Tensor, at: dict[str, int]) -> dict[str, Tensor]:
    """This rank's parts of the gradients of one process with the whole batch."""
    inputs, targets = tokens[..., :-1].flatten(0, 1), tokens[..., 1:].flatten(0, 1)
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    named: dict[str, nn.Parameter] = dict(model.named_parameters())

    def part(each: str) -> Tensor:
        gradient: Any = named[each].grad
        return cut(each, gradient, 2, at["tp"]).clone() if each.startswith("blocks.") else gradient

    return {each: part(each) for each in names_of(at["pp"])}


def show_steps(fn: Callable, case: Case, tokens: Tensor, weights: list[Tensor], numbers: Tensor) -> list:
    """`fn(gradients, right, at)` for a step with each fault."""
    tokens, numbers, *weights = from_rank_0([tokens, numbers, *weights])
    coordinates, groups = place(dist.get_rank(), SIZES), _groups()
    at = {axis: coordinates[axis] for axis in ("pp", "dp", "tp")}
    right = _right(_whole(weights), tokens, at)
    local = _local_gradients(_cut(_whole(weights), at, groups["tp"]), tokens, at)
    found = []
    for fault in planted(numbers):
        gradients = _put_together(local, fault, at, groups)
        answer = fn(gradients, {each: gradient.clone() for each, gradient in right.items()}, dict(at))
        if type(answer) is not dict:
            raise TypeError(f"expected a dict with parameters, factor and axis, and got {name(answer)}")
        found.append(answer)
    return found


def to_be_found(outcome: Outcome) -> list:
    """Of `show_steps`."""
    return [[fault.found() for fault in planted(outcome.inputs[0][2])]] * outcome.ranks


@each_rank
def finds(outcome: Outcome, rank: int, where: str, item: str, advice: dict[str, str]) -> None:
    """In each step `item` of the answer is right; `advice` is by the kind of the fault."""
    for step, fault in enumerate(planted(outcome.inputs[0][2])):
        got, right = outcome.results[rank][step].get(item), outcome.expected[rank][step][item]
        got = float(got) if type(got) is int and item == "factor" else got
        if differ(got, right):
            shown = f"{got:g}" if type(got) is float else got if type(got) in (str, list) else name(got)
            raise Wrong(f"{where}: step {step}: {item} is {shown!r}; expected {right!r}", advice.get(fault.kind, ""))
