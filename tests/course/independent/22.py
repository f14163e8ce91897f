from fractions import Fraction

from independent.reading import idle, read


def runs_scale(text):
    q = read(text, "pp = {pp}, {v} chunk", "and dp = {few} has {m} microbatches", "takes {step} s", "to dp = {more}")
    one_s = q.step / (q.m + idle(q.pp, q.v))  # of one microbatch
    m = q.m * q.few // q.more
    assert m * q.more == q.m * q.few
    return one_s * (m + idle(q.pp, q.v))


def runs_growth(text):
    q = read(text, "grow {compute} times", "reaches {chip} times", "lasts {longer} times", "after {years} years")
    chips = Fraction(1)
    for _ in range(q.years):
        chips = chips * Fraction(str(q.compute)) / Fraction(str(q.chip)) / Fraction(str(q.longer))
    return float(chips)


def runs_tokens(text):
    q = read(text, "uses {active} billion", "On {gpus} H800 ({tera} TFLOP/s", "MFU of {mfu} %", "{t} trillion tokens")
    per_day = q.gpus * q.tera * 1e12 * q.mfu / 100 * 24 * 60 * 60
    token_flops = 3 * 2 * q.active * 1e9  # a forward pass, and two in the backward pass
    return q.t * 1e12 * token_flops / per_day
