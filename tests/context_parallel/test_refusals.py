"""What cannot be shared is refused with a sentence on the rank that it is about, before anything is sent or changed."""

import re

import pytest
import torch
import torch.distributed as dist
from shared_cp import message, worlds
from torch import nn

from parallel_lab import launch
from parallel_lab.context_parallel import context_parallel, positions, ring_attention, shard_sequence, ulysses
from parallel_lab.model import GPTConfig, build
from parallel_lab.model.gpt import causal_attention
from parallel_lab.runtime import RankFailed

pytestmark = pytest.mark.usefixtures("by_value")
SMALL = {"seq": 24, "width": 24, "heads": 4, "layers": 1}


def made(**options):
    return build(GPTConfig(**SMALL | options))


def said():
    """Refusals by what they must say."""
    groups, found = dict(worlds(2, 3)), {}
    x, narrow = torch.zeros(2, 4, 6, 3), torch.zeros(2, 4, 5, 3)
    rank = dist.get_rank()
    found[
        f"rank {rank}: a sequence of 7 does not divide into 6 chunks, two for each rank (zigzag=True): pad it to 12"
    ] = message(positions, 7, group=groups[3])
    found["a sequence of 8 does not divide into 3 chunks, one for each rank (zigzag=False): pad it to 9"] = message(
        shard_sequence, torch.zeros(1, 8), zigzag=False, group=groups[3]
    )
    found["(2, 4, 6, 3): expected (batch, heads, seq/n, head_width) of each"] = message(ring_attention, x[..., 0], x, x)
    found["key (2, 4, 5, 3), value (2, 4, 6, 3): all must have"] = message(ring_attention, x, narrow, x)
    found[f"rank {rank}: 4 query heads do not divide among 3 key-value heads"] = message(ulysses, x, x[:, :3], x[:, :3])
    found["must have one dtype"] = message(ring_attention, x, x.double(), x.double())
    found["5 tokens are no two chunks of one length, as zigzag=True has them"] = message(
        ring_attention, narrow, narrow, narrow
    )
    found["4 heads do not divide by 3 ranks: choose a divisor of 4, or ring attention"] = message(ulysses, x, x, x)
    found["write ring_attention(query, key, value, causal=..., zigzag=..., group=...)"] = message(
        ring_attention, x, x, x, True
    )
    model = made()
    found["4 heads do not divide by 3 ranks"] = message(context_parallel, model, method="ulysses")
    found["method='rings': expected 'ring' or 'ulysses'"] = message(context_parallel, model, method="rings")
    assert all(block.attention.attend is causal_attention for block in model.blocks)
    found["context_parallel takes a GPT, and this is a Linear"] = message(context_parallel, nn.Linear(4, 4))
    found["neither divide by 3 ranks nor the ranks by them"] = message(
        context_parallel, made(heads=12, kv_heads=2), method="ulysses"
    )
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    for kind in ("learned", "rotary"):
        shared = context_parallel(made(positions=kind))
        name = "Embedding" if kind == "learned" else "Attention"
        found[f"under context parallelism {name} was called without positions"] = message(shared, tokens)
    found["the attention of this model was replaced before"] = message(context_parallel, shared)
    return found


def test_what_does_not_fit():
    for result in launch(said, ranks=3, timeout=60).results:
        assert len(result) == 16
        assert all(expected in found for expected, found in result.items()), result


def test_ranks_that_differ():
    """Other settings: rank 1 is told, and the others wait for it."""

    def settings():
        context_parallel(made(), zigzag=dist.get_rank() == 0)

    with pytest.raises(RankFailed, match=re.escape("rank 1 does not have the model of rank 0: value of the setting")):
        launch(settings, ranks=2, timeout=20)


def test_one_rank_that_refuses_speaks_for_all():
    """Only rank 1's model was replaced before; rank 0 has changed nothing when it ends."""

    def replaced():
        model = made()
        if dist.get_rank():
            model.blocks[0].attention.attend = lambda query, key, value: query
        context_parallel(model)

    with pytest.raises(RankFailed, match=re.escape("rank 1: the attention of this model was replaced before")):
        launch(replaced, ranks=2, timeout=20)
