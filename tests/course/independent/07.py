from fractions import Fraction

import torch
from independent.reading import PRODUCTS, fewest_parts, read, ring_sent, steps_of


def cut_bytes(text):
    q = read(text, "{b} billion parameters, width {width}", "A step of {tokens} tokens", "over {n} ranks")
    activation = torch.empty(q.tokens, q.width, dtype=torch.bfloat16, device="meta")
    gradient = torch.empty_like(activation)
    return ring_sent(q.n, 2 * q.b * 1e9) / (activation.nbytes + gradient.nbytes)


def pipeline_speedup(text):
    q = read(text, "into {p} equal stages", "has {m} microbatch")
    return q.m * q.p / steps_of(q.p, q.m)  # one rank computes for all stages


def ways_to_fit(text):
    q = read(text, "{b} billion parameters with {size} bytes", "Of {gb} GB per GPU, {share}%")
    return fewest_parts(q.size * q.b, Fraction(q.gb * q.share, 100))


def tensor_time(text):
    q = read(text, "h = {h}", "over {n} ranks: {times} all-reduces", "links of {gb} GB/s, {tera} TFLOP/s")
    weights = sum(rows * columns for rows, columns in PRODUCTS) * q.h**2
    assert weights == 12 * q.h**2
    talking_s = sum(ring_sent(q.n, q.h * torch.bfloat16.itemsize) for _ in range(q.times)) / (q.gb * 1e9)
    computing_s = sum(2 * weights / q.n for _ in range(3)) / (q.tera * 1e12)  # forward, and two products backward
    return 100 * talking_s / (talking_s + computing_s)
