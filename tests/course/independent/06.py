from fractions import Fraction

from independent.reading import fewest_parts, half_ring_sent, least, read


def zero_memory(text):
    q = read(text, "{b} billion parameters", "({w} + {g} + {o})", "stage {stage}, {n} ranks")
    kept = [(q.w, 3), (q.g, 2), (q.o, 1)]  # bytes, and the stage from which on they are sharded
    return q.b * sum(size / q.n if q.stage >= first else size for size, first in kept)


def zero_ranks(text):
    q = read(text, "{b} billion parameters", "({size} bytes per parameter)", "Of {gb} GB per GPU, {share}%")
    return fewest_parts(q.size * q.b, Fraction(q.gb * q.share, 100))


def zero_bytes(text):
    q = read(text, "{b} billion parameters", "{n} ranks, {m} microbatches", "in {size} bytes each")
    sent = 0.0
    for _ in range(q.m):
        sent += half_ring_sent(q.n, 2 * q.b)  # gathered for the forward pass
        sent += half_ring_sent(q.n, 2 * q.b)  # and again for the backward pass
    return sent + half_ring_sent(q.n, q.size * q.b)


def fsdp_tokens(text):
    q = read(text, "with {cards} card", "of {gbit} Gbit/s", "{tera} TFLOP/s")
    bytes_per_s = q.cards * q.gbit * 1e9 / 8

    def hides(tokens):  # per parameter: a gather behind forward; a gather and a reduce-scatter behind backward
        second_s = 2 * tokens / (q.tera * 1e12)
        return 2 / bytes_per_s <= second_s and (2 + 2) / bytes_per_s <= 2 * second_s

    return least(hides, 0, 1e9)
