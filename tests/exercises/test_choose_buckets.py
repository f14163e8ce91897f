"""`choose_buckets`: the usual cuts fail where they are slow, and say how slow; the fastest is the fastest of all."""

import random
from itertools import accumulate, pairwise, product

import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

from parallel_lab.grading import compressed
from parallel_lab.grading.bucketing import Problem
from parallel_lab.grading.exercises.choose_buckets import FAR, FAST, MIDDLE, SLOW

by_value(__name__)
NAME = "choose_buckets"
choose_buckets = solutions(NAME)[NAME]


def first_layers_first(sizes, backward_s, n, latency_s, bytes_per_s):
    buckets = choose_buckets(sizes, backward_s, n, latency_s, bytes_per_s)
    return [sorted(bucket) for bucket in reversed(buckets)]


def by_bytes(sizes, most, close=True):
    buckets, bucket = [], []
    for layer in reversed(range(len(sizes))):
        bucket.append(layer)
        if sum(sizes[each] for each in bucket) >= most:
            buckets.append(bucket)
            bucket = []
    return buckets + [bucket] * (close and bool(bucket))


def last_one_never_full(sizes, *_):
    return by_bytes(sizes, sum(sizes) * 0.51, close=False)


def one_for_each(sizes, *_):
    return by_bytes(sizes, 0)


def one_for_all(sizes, *_):
    return by_bytes(sizes, sum(sizes))


def always_25_mib(sizes, *_):
    return by_bytes(sizes, 25 * 2**20)


def one_latency(sizes, backward_s, n, latency_s, bytes_per_s):
    """The price of a ring as one message."""
    return choose_buckets(sizes, backward_s, n, latency_s / (2 * (n - 1)), bytes_per_s)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        first_layers_first,
        0,
        r"bucket 0 has layer 0 and bucket 1 layer \d+, whose gradient comes earlier\n.*leave first",
    ),
    (last_one_never_full, 0, r"layer 0 is in 0 buckets, expected one\n.*not full when the layers end"),
    (
        one_for_each,
        1,
        r"1.25 GB/s and 5.00 ms: .* a step with \d+ buckets takes .* the shortest: the best .*\n.*the latency of its",
    ),
    (one_for_all, 2, r"a step with 1 bucket takes .* times the shortest.*\n.*leaves when backward is over"),
    (always_25_mib, 3, r"times the shortest.*\n.*a default that knows neither"),
    (
        one_latency,
        3,
        r"times the shortest.*\n.*(How many messages follow one another in a ring|latency of its whole|a default that)",
    ),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def by_trying(sizes, backward_s, n, latency_s, bytes_per_s):
    """Not a cheat: from the best cut of all layers, looked for from the other end, with memory."""
    order = list(reversed(range(len(sizes))))
    done_s, sent = list(accumulate(backward_s[i] for i in order)), [0, *accumulate(sizes[i] for i in order)]
    known = {0: (0.0, ())}

    def best(stop):
        if stop not in known:
            cost = [2 * (n - 1) * (latency_s + (sent[stop] - sent[start]) / n / bytes_per_s) for start in range(stop)]
            known[stop] = min(
                (max(best(start)[0], done_s[stop - 1]) + cost[start], (*best(start)[1], stop)) for start in range(stop)
            )
        return known[stop]

    return [order[start:stop] for start, stop in pairwise([0, *best(len(sizes))[1]])]


def test_another_right_answer_passes():
    assert_passes(NAME, by_trying)


def rule_of_the_square_root(sizes, backward_s, n, latency_s, bytes_per_s):
    """As many buckets as balance latencies against what the last one shows."""
    whole_s = 2 * (n - 1) / n * sum(sizes) / bytes_per_s
    count = max(1, round((whole_s / (2 * (n - 1) * latency_s)) ** 0.5))
    return by_bytes(sizes, sum(sizes) / count)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, one_for_all, "leaves when backward is over")
    assert_ends_a_step(NAME, 2, rule_of_the_square_root, "times the shortest: the best cut has")


@pytest.mark.parametrize("link", [FAR, MIDDLE, SLOW, FAST])
def test_no_cut_is_faster_in_the_simulator(link):
    """All 2^8 cuts of nine layers, by the plan of DDP."""
    sizes, backward_s, *rest = compressed.layers(random.Random(1), (link,))[0]
    problem = Problem(sizes[:9], backward_s[:9], *rest)
    order, times = list(reversed(range(len(problem.sizes)))), []
    for cuts in product((False, True), repeat=len(order) - 1):
        places = [0, *(i for i, cut in enumerate(cuts, 1) if cut), len(order)]
        times.append(problem.step_s([order[a:b] for a, b in pairwise(places)]))
    assert problem.step_s(problem.fastest()) == pytest.approx(min(times), rel=1e-12)
