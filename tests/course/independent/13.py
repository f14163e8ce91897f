import numpy as np
import torch
from independent.reading import half_ring_sent, read, ring_sent


def comp_stored(text):
    q = read(text, "{b} billion weights are quantized to {bits} bits in groups of {group}", "a scale of {scale} bits")
    one_group = [q.bits] * q.group + [q.scale]
    if "a zero point of" in text:
        one_group.append(read(text, "a zero point of {zero} bits").zero)
    return sum(one_group) / 8 * q.b / q.group


def comp_top_k(text):
    q = read(text, "over {n} ranks", "largest {percent} %", "({value} bytes of value, {index} of index each)")
    numbers = 1e6
    kept = numbers * q.percent / 100 * (q.value + q.index)
    sparse = sum(kept for _ in range(q.n - 1))  # the own part, and those that are handed on, one after the other
    assert abs(sparse - half_ring_sent(q.n, kept * q.n)) < 1e-6 * sparse
    return sparse / ring_sent(q.n, torch.float32.itemsize * numbers)


def comp_rank(text):
    q = read(text, "of rank {rank}", "matrix of {rows} by {columns}")
    matrix = torch.empty(q.rows, q.columns, device="meta")
    right = torch.empty(q.columns, q.rank, device="meta")
    return matrix.numel() / ((matrix @ right).numel() + right.numel())


def comp_step(text):
    q = read(text, "between -{largest} and", "grid of {bits} bits", "to {steps} steps")
    step = q.largest / q.steps
    many = 2001 * 2 * q.steps
    weights = -q.largest + (np.arange(many) + 0.5) * (2 * q.largest / many)
    return 1e3 * np.sqrt(np.mean((weights - step * np.round(weights / step)) ** 2))
