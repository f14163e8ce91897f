"""The gaps of chapter 18, solved."""

from statistics import mean, stdev


def eval_counted(samples, rank, ranks):
    each = (samples + ranks - 1) // ranks
    return [place < samples for place in range(rank, ranks * each, ranks)]


def eval_paired_error(first, second):
    gains = [b - a for a, b in zip(first, second, strict=True)]
    return mean(gains), stdev(gains) / len(gains) ** 0.5


def eval_predicted_speedup(one_s, n_s, n, more):
    serial = (n_s / one_s - 1 / n) / (1 - 1 / n)
    return 1 / (serial + (1 - serial) / more)
