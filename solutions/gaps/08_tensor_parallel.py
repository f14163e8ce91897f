"""The gaps of chapter 08, solved."""

import math


def heads_of_rank(heads, kv_heads, n, rank):
    if heads % n or (kv_heads % n and n % kv_heads):
        return None
    each = heads // n
    query = list(range(rank * each, (rank + 1) * each))
    group = heads // kv_heads
    return [query, sorted({head // group for head in query})]


def loss_of_shares(shares, target):
    top = max(max(share) for share in shares)
    total = sum(sum(math.exp(logit - top) for logit in share) for share in shares)
    for share in shares:
        if target < len(share):
            return top + math.log(total) - share[target]
        target -= len(share)


def most_ranks(width, flops, bytes_per_s, share):
    if share >= 1:
        return None
    ratio = share / (1 - share)
    return math.floor(1 + ratio * 9 * width * bytes_per_s / (2 * flops) + 1e-9)
