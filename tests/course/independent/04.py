from fractions import Fraction

from independent.reading import read, ring_rounds


def asynchronous_gain(text):
    q = read(text, "{n} workers", "one takes {factor} s")
    factor, seconds = Fraction(str(q.factor)), 60
    waiting = q.n * (seconds / factor)  # gradients in a minute where all wait for the slowest
    each = [Fraction(1)] * (q.n - 1) + [factor]
    return float(sum(seconds / one for one in each) / waiting)


def slowest_of_many(text):
    q = read(text, "Each of {n} GPUs is slow in one step of {per}")
    some = 0.0
    for _ in range(q.n):
        some += (1 - some) / q.per
    return 100 * some


def staleness_bound(text):
    q = read(text, "with {n} workers", "c = {c} steps ahead")
    me = 100
    others, missed = [me - q.c] * (q.n - 1), 0  # the steps that they pull for: I may just pull for mine
    while any(step - min([me, *others]) <= q.c for step in others):
        at = others.index(min(others))
        others[at] += 1
        missed += 1
    return missed


def centers_exchange(text):
    q = read(text, "{n} data centers train {b} B", "every {steps} steps", "links of {gbit} Gbit/s")
    seconds = sum(8 * 2 * q.b / q.n / q.gbit for _ in range(ring_rounds(q.n)))
    return seconds / q.steps
