import numpy as np
from independent.reading import least, numbers, read

MANY = 10**9  # ranks


def hidden(tokens, flops, bytes_per_s, gradient_bytes):
    """Whether the exchange of one parameter's gradient takes no longer than its two products of the backward pass."""
    backward_s = 2 * 2 * tokens / flops
    return gradient_bytes * 2 * (MANY - 1) / MANY / bytes_per_s <= backward_s


def tokens_that_hide(text):
    q = read(text, "reaches {tera} TFLOP/s", "all-reduce {gb} GB/s", "have {size} bytes per parameter")
    return least(lambda t: hidden(t, q.tera * 1e12, q.gb * 1e9, q.size), 0, 1e9)


def overlapped_step(text):
    q = read(text, "Forward takes {forward} ms, backward {backward} ms in {n} equal buckets")
    each = read(text, "of one bucket {exchange} ms").exchange
    now, link = float(q.forward), 0.0
    for _ in range(q.n):
        now += q.backward / q.n
        link = max(link, now) + each
    return link


def ranks_at_most(text):
    q = read(text, "batch of {count} sequences of {length} tokens", "reach {tera} TFLOP/s", "all-reduce {gb} GB/s")
    for ranks in range(q.count, 0, -1):
        if hidden(q.count // ranks * q.length, q.tera * 1e12, q.gb * 1e9, 2):
            return ranks
    raise AssertionError("no number of ranks hides it")


def uneven_weight(text):
    n, *counts = numbers(text)
    assert len(counts) == n
    losses = [np.zeros(count) for count in counts]
    losses[0][0] = 1.0  # one token of the first rank has a loss
    wanted = np.concatenate(losses).mean()
    averaged = np.mean([loss.mean() for loss in losses])
    return wanted / averaged
