"""The gaps of chapter 07, solved."""

from functools import cache


def step_bytes(parameters, layers, width, tokens, n, item_bytes):
    all_reduce = 2 * (n - 1) / n  # of the tensor's bytes
    activation = tokens * width * item_bytes
    return {
        "data": all_reduce * parameters * item_bytes,
        "tensor": 4 * layers * all_reduce * activation,
        "pipeline": 2 * activation,
    }


def slowest_stage(costs, p):
    @cache
    def best(end, stages):
        "Of the first `end` layers."
        if stages == 1:
            return sum(costs[:end])
        return min(max(best(cut, stages - 1), sum(costs[cut:end])) for cut in range(stages - 1, end))

    return best(len(costs), p)
