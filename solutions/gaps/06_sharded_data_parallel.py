"""The gaps of chapter 06, solved."""

import math

import torch
import torch.distributed as dist


def ranks_needed(parameters, stage, memory_bytes):
    whole, cut = [(16, 0), (4, 12), (2, 14), (0, 16)][stage]
    if (whole + cut) * parameters <= memory_bytes:
        return 1
    left = memory_bytes - whole * parameters
    return math.ceil(cut * parameters / left) if cut and left > 0 else None


def sharded_step(weights, gradient, lr):
    rank, n = dist.get_rank(), dist.get_world_size()
    mine = torch.empty_like(gradient.chunk(n)[rank])
    dist.reduce_scatter(mine, list(gradient.chunk(n)))
    mine = weights.chunk(n)[rank] - lr * mine / n
    stepped = torch.empty_like(weights)
    dist.all_gather(list(stepped.chunk(n)), mine)
    return stepped


def row_bounds(rows, n, rank):
    piece = math.ceil(rows / n)
    return min(rank * piece, rows), min((rank + 1) * piece, rows)
