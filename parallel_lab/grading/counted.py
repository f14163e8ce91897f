"""Inputs, oracle and grader for counting a GPT's training step: the oracle builds the model and counts what it does.

Nothing is computed: the model stands on the meta device, and `FlopCounterMode` counts the matrix products of a forward
and a backward pass. Causal attention is run a query at a time over the keys that this query sees, so it is counted too.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from parallel_lab.grading.expect import each_rank
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.miscounts import Mistake
from parallel_lab.grading.rank_side import Case, name
from parallel_lab.model.gpt import GPT, Attention, GPTConfig, loss

BF16, F32 = torch.bfloat16, torch.float32
# Of each parameter: weight, gradient, master copy and Adam's two moments; 16, 18 (float32 gradient) or 20 bytes (both).
KEPT = ((BF16, BF16, F32, F32, F32), (BF16, F32, F32, F32, F32), (BF16, BF16, F32, F32, F32, F32))
GPT3 = GPTConfig(vocab=50_257, seq=2048, layers=96, heads=96, width=12_288)  # Brown et al. 2020, table 2.1
T = TypeVar("T")
VARIED = ("vocab", "seq", "layers", "heads", "width", "mlp_ratio", "tied", "bias")  # of a config, here


def shapes(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """A config, a batch and the dtypes kept of each parameter, each rank its own; the setting `config` is for all."""

    def one_of(*values: T) -> T:
        return values[int(torch.randint(len(values), (), generator=generator))]

    heads = one_of(1, 2, 4)
    config = GPTConfig(
        vocab=one_of(11, 17, 50), seq=one_of(3, 5, 9), layers=one_of(1, 2, 3), heads=heads, width=heads * one_of(2, 5),
        mlp_ratio=one_of(2, 3, 4), tied=rank % 2 == 0, bias=bool(one_of(0, 1)),
    )  # fmt: skip
    given = case.get("config")
    return given or config, 1 if given else one_of(1, 2, 3), list(one_of(*KEPT))


def counted(outcome: Outcome) -> list:
    """What the models of the ranks hold and do."""
    return [_counted(*given) for given in outcome.inputs]


def _counted(config: GPTConfig, batch: int, kept: list[torch.dtype]) -> dict:
    parameters, flops = _run(config, batch, _square)
    right = {"parameters": parameters, "state_bytes": parameters * sum(dtype.itemsize for dtype in kept)}
    # A query at a time is slow: of a large model the causal count is not asked.
    return right | {"flops": flops} | ({"causal_flops": _run(config, batch, _seen)[1]} if config.seq < 100 else {})


@functools.cache
def _run(config: GPTConfig, batch: int, attend: Callable) -> tuple[int, int]:
    if config.layers > 3:  # equal blocks: each of them adds what the second does
        one, two = (_run(replace(config, layers=layers), batch, attend) for layers in (1, 2))
        return one[0] + (config.layers - 1) * (two[0] - one[0]), one[1] + (config.layers - 1) * (two[1] - one[1])
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model, tokens = GPT(config), torch.zeros(batch, config.seq, dtype=torch.long)
        for module in model.modules():
            if isinstance(module, Attention):
                module.attend = attend
        loss(model(tokens), tokens).backward()
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()


def _square(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1) @ value


def _seen(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    sees = range(1, query.shape[-2] + 1)
    return torch.cat([_square(query[..., n - 1 : n, :], key[..., :n, :], value[..., :n, :]) for n in sees], -2)


@each_rank
def counts(outcome: Outcome, rank: int, where: str, *items: str, mistakes: Mapping[str, Mistake]) -> None:
    """The `items` of a rank's result are right; if one is what a usual mistake gives, the message says which.

    A mistake is a function of (config, batch, what is right).
    """
    (config, batch, _), got, right = outcome.inputs[rank], outcome.results[rank], outcome.expected[rank]
    if type(got) is not dict:
        raise Wrong(
            f"{where} returned {name(got)}, expected a dict with {', '.join(items)}",
            "Is there a `return`?" if got is None else "",
        )
    for item in items:
        if item not in got:
            raise Wrong(f"{where}: the result has no {item!r}", "One dict has all of them; add it to yours.")
        if got[item] != right[item]:
            known = _known(outcome, rank, item, mistakes)
            seen = f"{where}, {_shape(config)}, batch {batch}: {item} is {got[item]}, expected {right[item]}"
            raise Wrong(seen, known or "Try it by hand for one layer and one token, and add up.")


def _shape(config: GPTConfig) -> str:
    """A config by the fields that differ from rank to rank; the others are left at their defaults."""
    return f"GPTConfig({', '.join(f'{field}={getattr(config, field)}' for field in VARIED)})"


def _known(outcome: Outcome, rank: int, item: str, mistakes: Mapping[str, Mistake]) -> str:
    """What is said of the mistake that `rank` made in `item`: of those that explain it, that of the most other ranks.

    Two that explain as much are both named; empty if none does.
    """

    def explains(mistake: Mistake, rank: int) -> bool:
        (config, batch, _), got = outcome.inputs[rank], outcome.results[rank]
        return type(got) is dict and got.get(item) == mistake(config, batch, outcome.expected[rank])

    ranks = range(outcome.ranks)
    found = [said for said, mistake in mistakes.items() if explains(mistake, rank)]
    times = {said: sum(explains(mistakes[said], other) for other in ranks) for said in found}
    return " Or: ".join([said for said in found if times[said] == max(times.values())][:2])
