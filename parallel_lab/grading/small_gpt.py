"""A GPT of two blocks on 2 x 2 x 2 ranks, in plain torch: what autograd leaves on each rank, and what one process has.

Two stages, each with a block that is cut over two ranks of tp, with half of the sequence between its cut parts, and the
embedding or the head, which share a weight. Several microbatches go through, for two shares of the batch. Nothing is
added up yet: that is where `runs` plants a mistake. Ranks import this module.
"""

import functools
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.cutting import cut
from parallel_lab.grading.rank_side import Case
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.gpt import GPT

CONFIG = GPTConfig(vocab=11, seq=4, layers=2, heads=2, width=8, mlp_ratio=2, tied=True)
SIZES = {"pp": 2, "dp": 2, "cp": 1, "tp": 2, "ep": 1}
TIED = "embedding.tokens.weight"
M, ROWS = 3, 4  # microbatches of a rank, and the rows of one, over both data ranks


@functools.cache
def _shapes() -> dict[str, torch.Size]:
    return {name: p.shape for name, p in GPT(CONFIG).named_parameters()}


def names_of(stage: int) -> list[str]:
    """The parameters of a stage, by their names in the whole model; the tied one is in both."""
    ends = ("embedding.", f"blocks.{stage}.") if stage == 0 else (TIED, f"blocks.{stage}.", "head.")
    return [each for each in _shapes() if each.startswith(ends)]


def batches(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Tokens of all microbatches, weights of the whole model, and numbers to choose parameters by; rank 0's count."""
    tokens = torch.randint(CONFIG.vocab, (M, ROWS, CONFIG.seq + 1), generator=generator)
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) / 2 for shape in _shapes().values()]
    return tokens, weights, torch.randint(1000, (6,), generator=generator)


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


def groups_of_axes() -> dict[str, Any]:
    """This rank's groups of pp, dp and tp."""
    ranks, mine = torch.arange(8).view(2, 2, 2), {}
    for dim, axis in enumerate(("pp", "dp", "tp")):
        for row in ranks.movedim(dim, -1).reshape(-1, 2).tolist():
            group = dist.new_group(row)
            if dist.get_rank() in row:
                mine[axis] = group
    return mine


def whole_gpt(weights: list[Tensor]) -> GPT:
    """The model of one process, with copies of `weights`."""
    model = GPT(CONFIG).double()
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        parameter.data = weight.clone()
    return model


def cut_gpt(model: GPT, at: dict[str, int], group: Any) -> GPT:
    """Its blocks cut over tp, entered by a gather behind each norm and left by a reduce-scatter before each bias."""
    for block in list(model.blocks):
        for each, p in block.named_parameters():
            p.data = cut(each, p.data, 2, at["tp"]).clone()
        for norm in (block.attention_norm, block.feed_forward_norm):  # pyright: ignore[reportAttributeAccessIssue]
            norm.register_forward_hook(lambda _, args, out: _Gather.apply(out, group))  # pyright: ignore
        for row in (block.attention.out, block.feed_forward.down):  # pyright: ignore[reportAttributeAccessIssue]
            row.forward = lambda x, row=row: _Scatter.apply(F.linear(x, row.weight), group) + row.bias  # pyright: ignore
    return model


def local_gradients(model: GPT, tokens: Tensor, at: dict[str, int]) -> dict[str, Tensor]:
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


def right_gradients(model: GPT, tokens: Tensor, at: dict[str, int]) -> dict[str, Tensor]:
    """This rank's parts of the gradients of one process with the whole batch."""
    inputs, targets = tokens[..., :-1].flatten(0, 1), tokens[..., 1:].flatten(0, 1)
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    named: dict[str, nn.Parameter] = dict(model.named_parameters())

    def part(each: str) -> Tensor:
        gradient: Any = named[each].grad
        return cut(each, gradient, 2, at["tp"]).clone() if each.startswith("blocks.") else gradient

    return {each: part(each) for each in names_of(at["pp"])}
