import numpy as np
from independent.reading import least, read
from sklearn.metrics import f1_score


def eval_f1(text):
    said, found = [], []
    for rank in range(3):
        q = read(text, f"rank {rank}: {{tp}} true positives, {{fp}} false positives, {{fn}} missed")
        said += [1] * (q.tp + q.fp) + [0] * q.fn
        found += [1] * q.tp + [0] * q.fp + [1] * q.fn
    return 100 * f1_score(found, said)


def eval_perplexity(text):
    parts = text.split("over ")[1].split(". What")[0].split(", ")
    ranks = [read(part, "{tokens} tokens at {loss} nats") for part in parts]
    chances = np.concatenate([np.full(rank.tokens, np.exp(-rank.loss)) for rank in ranks])
    return float(np.prod(np.power(1 / chances, 1 / len(chances))))  # 1 over the geometric mean


def eval_error(text):
    q = read(text, "in {agree}% of the questions both", "The second is {points} points better")
    better, differ = q.points / 100, 1 - q.agree / 100
    chances = {1: (differ + better) / 2, -1: (differ - better) / 2, 0: 1 - differ}
    mean = sum(value * chance for value, chance in chances.items())
    variance = sum((value - mean) ** 2 * chance for value, chance in chances.items())
    return least(lambda n: mean - 1.96 * (variance / n) ** 0.5 >= 0, 1, 1e9) / 1000


def eval_mfu(text):
    q = read(text, "of {b} billion parameters was trained on {t} trillion", "in {hours} {gpu:w} hours ({tera} TFLOP")
    reached = 3 * 2 * q.b * 1e9 * q.t * 1e12 / (q.hours * 3600)  # FLOP/s of a GPU: a forward pass and two more
    return 100 * reached / (q.tera * 1e12)


def eval_scaling(text):
    q = read(text, "runs {speedup} times as fast on {n} GPUs", "as fast on {m}?")

    def seconds(serial, ranks):
        return serial + (1 - serial) / ranks

    serial = least(lambda share: seconds(share, q.n) >= 1 / q.speedup, 0, 1)
    return 1 / seconds(serial, q.m)
