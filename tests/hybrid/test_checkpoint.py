"""Checkpoints of laid out models: any layout reads any other, bit by bit, and nothing that goes wrong loses one."""

import itertools
import os
import signal

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.hybrid import Layout, checkpoint, folder, held, parallelize, train_step
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.data import text_batches
from parallel_lab.model.gpt import GPT
from parallel_lab.runtime import Kill, RankFailed

CONFIG = GPTConfig(vocab=257, seq=8, layers=2, heads=4, kv_heads=2, width=16)  # 257: the last part is padded
BATCHES = list(text_batches(8, 4, 6))


def laid_out(layout, config=CONFIG, **settings):
    torch.manual_seed(dist.get_rank() if settings.pop("apart", False) else 7)
    return parallelize(GPT(config), layout, lr=0.01, weight_decay=0.1, **settings)


def steps(parallel, first, last):
    return [train_step(parallel, *BATCHES[k]).loss.item() for k in range(first, last)]


def whole(parallel):
    """Weights and moments of the whole model, put together without the code of checkpoints; the same on all ranks."""
    found = {}
    mine = {each.name: each for each in held(parallel) if each.answers and each.numbers}
    shapes = [None] * dist.get_world_size()
    dist.all_gather_object(shapes, {name: each.shape for name, each in mine.items()})
    for name, shape in sorted({name: shape for rows in shapes for name, shape in rows.items()}.items()):
        for key in ("", "exp_avg", "exp_avg_sq"):
            tensor = torch.zeros(shape)
            if name in mine:
                values = mine[name].state[key] if key else mine[name].stepped.detach()
                mine[name].write(tensor, values)
            dist.all_reduce(tensor)  # all other ranks have zeros
            found[name, key] = tensor
        if name in mine:
            found[name, "step"] = mine[name].state["step"].clone()
    return found
