"""A GPT cut into the stages of a pipeline, whose parameters keep their names in the whole GPT, and the loss.

The layers are a chain: embedding, blocks, head. `pipeline.partition` cuts it so that the slowest stage is as fast as
can be; a block costs what its matrices multiply, the head its output layer, the embedding nothing. A tied head that
lands in another stage than the embedding is a copy, whose gradient is added to that of the first (`pipeline.tied`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab import pipeline
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.formulas import matmul_parameters
from parallel_lab.model.gpt import GPT
from parallel_lab.model.weighted import IGNORED
from parallel_lab.pipeline.tied import Tied
from parallel_lab.plan import Plan
from parallel_lab.tensor_parallel import vocab_cross_entropy

SCHEDULES: dict[str, Callable[[int, int], Plan]] = {
    "gpipe": pipeline.gpipe,
    "1f1b": pipeline.one_f_one_b,
    "interleaved": lambda p, m: pipeline.interleaved(p, m, 2),
    "zb_h1": pipeline.zb_h1,
    "zb_h2": pipeline.zb_h2,
    "zb_v": pipeline.zb_v,
    "dualpipe_v": pipeline.dualpipe_v,
}


def schedule_of(schedule: str | Callable[[int, int], Plan], p: int, m: int) -> Plan:
    """The plan of `m` microbatches over `p` ranks; `interleaved` has two stages a rank.

    Raises:
        ValueError: there is no such schedule, or it cannot have so many microbatches.
    """
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r}: expected one of {', '.join(SCHEDULES)}, or a function of p and m")
    return (SCHEDULES[schedule] if isinstance(schedule, str) else schedule)(p, m)


class Part(nn.Module):
    """Some neighboring layers of a GPT, under their names in it: the module of a stage.

    The first takes tokens (batch, seq), all others vectors (batch, seq, width); the last returns logits, this rank's
    columns of them. `positions` (seq,) says where the tokens stand, for a rank that has a part of the sequence.
    """

    def __init__(self, gpt: GPT, layers: range) -> None:
        super().__init__()
        count = len(gpt.blocks)
        self.positions: Tensor | None = None
        self.embedding = gpt.embedding if 0 in layers else None
        self.blocks = nn.ModuleDict({str(k): gpt.blocks[k] for k in range(count) if k + 1 in layers})
        self.head = gpt.head if count + 1 in layers else None

    def forward(self, x: Tensor) -> Tensor:
        """Through these layers, one after another."""
        where = {} if self.positions is None else {"positions": self.positions}
        if self.embedding is not None:
            x = self.embedding(x, **where)
        for block in self.blocks.values():
            x = block(x, **where)
        return x if self.head is None else self.head(x)


def stages_of(gpt: GPT, plan: Plan, rank: int) -> dict[int, Part]:
    """The stages of `rank` in a pipeline that is run by `plan`."""
    layers = layers_of(gpt.config, len(pipeline.placement(plan)))
    return {number: Part(gpt, layers[number]) for number in pipeline.stages_of(plan, rank)}


def layers_of(config: GPTConfig, stages: int) -> list[range]:
    """The layers of each stage: 0 is the embedding, then come the blocks, and the head."""
    head = config.vocab * config.width
    block = (matmul_parameters(config) - head) / config.layers
    return pipeline.partition([0.0, *[block] * config.layers, float(head)], stages)


def tie(config: GPTConfig, stages: Mapping[int, Part], plan: Plan, group: dist.ProcessGroup) -> Tied:
    """Ties the head's copy of the embedding to the first; all ranks of the pipeline call it."""
    if not config.tied or len(pipeline.placement(plan)) == 1:
        return Tied([], None)
    tokens: list[Any] = [part.embedding.tokens.weight for part in stages.values() if part.embedding is not None]
    heads: list[Any] = [part.head.linear.weight for part in stages.values() if part.head is not None]
    return pipeline.tie(*tokens, *heads, group=group)


def loss_sum(config: GPTConfig, tp: dist.ProcessGroup) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a microbatch: the sum over its targets, of logits that may be cut along tp or padded in seq."""

    def whole(logits: Tensor, targets: Tensor) -> Tensor:
        # In 32 bits or more: autocast leaves the log-softmax inside cross_entropy in 16.
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(wide.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")

    def cut(logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits[:, : targets.shape[1]]
        return vocab_cross_entropy(logits, targets, vocab=config.vocab, reduction="sum", group=tp)

    return whole if tp.size() == 1 else cut
