"""The gaps of chapter 09, solved."""


def bubble_share(p, m, v):
    return (p - 1) / (v * m + p - 1)


def microbatches_held(p, m, r):
    return min(p - r, m)
