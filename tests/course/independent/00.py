import torch
from independent.reading import read, ring_rounds, ring_sent


def step_bytes(text):
    q = read(text, "{n} ranks", "model of {millions} million parameters", "Gradients are {kind:w}")
    return ring_sent(q.n, q.millions * getattr(torch, q.kind).itemsize)


def latency_or_bytes(text):
    q = read(
        text, "{n} ranks all-reduce {mb} MB", "in {tensors} equal tensors", "latency of {micros} µs", "{gbit} Gbit/s"
    )
    seconds, piece_bits = 0.0, 8 * q.mb * 1e6 / q.tensors / q.n
    for _ in range(q.tensors):
        for _ in range(ring_rounds(q.n)):
            seconds += q.micros * 1e-6 + piece_bits / (q.gbit * 1e9)
    return 1e3 * seconds


def slow_rank(text):
    q = read(text, "on {n} equal ranks takes {ms} ms", "{share} % is communication", "takes {slower} % longer")
    talking_ms = q.ms * q.share / 100
    computing_ms = [q.ms - talking_ms] * q.n
    computing_ms[-1] += computing_ms[-1] * q.slower / 100
    return max(computing_ms) + talking_ms
