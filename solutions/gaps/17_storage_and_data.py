"""The gaps of chapter 17, solved."""

import math
from itertools import combinations


def data_readers(size, latency_s, bytes_per_s):
    transfer_s = size / bytes_per_s
    return math.ceil((latency_s + transfer_s) / transfer_s)


def data_candidates(signatures, bands):
    rows, found = len(signatures[0]) // bands, set()
    for start in range(0, rows * bands, rows):
        keys = [tuple(signature[start : start + rows]) for signature in signatures]
        found |= {(i, j) for i, j in combinations(range(len(keys)), 2) if keys[i] == keys[j]}
    return sorted(found)


def data_split_first(documents, held_out, size):
    train, kept_out = [], []
    for text in documents:
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        (kept_out if held_out(text) else train).extend(pieces)
    return train, kept_out
