"""The gaps of chapter 03, solved."""

import torch
import torch.distributed as dist


def global_mean(losses):
    both = torch.stack([losses.sum(), torch.tensor(float(len(losses)), dtype=losses.dtype)])
    dist.all_reduce(both)
    return both[0] / both[1]


def fill_buckets(sizes, limit):
    found = []
    for tensor in reversed(range(len(sizes))):
        if not found or sum(sizes[t] for t in found[-1]) + sizes[tensor] > limit:
            found.append([])
        found[-1].append(tensor)
    return found


def learning_rate(step, base, factor, warm_up):
    risen = min(step, warm_up) / warm_up
    return base + (factor * base - base) * risen
