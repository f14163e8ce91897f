"""`find_bottleneck`: who waits is blamed, waits taken for the network, overlap counted twice, every pause a bubble."""

from itertools import pairwise

import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

from parallel_lab import explain

by_value(__name__)
NAME = "find_bottleneck"
SPACE = solutions(NAME)
find_bottleneck, claims, name_of, covered, without, seconds = (
    SPACE[name] for name in (NAME, "claims", "name_of", "covered", "without", "seconds")
)


def blames_who_waits_longest(trace):
    found = find_bottleneck(trace)
    if found["cause"] == "straggler":
        lengths = [sum(s.end_s - s.start_s for s in trace.of(rank, "send")) for rank in range(trace.ranks)]
        found["rank"] = lengths.index(max(lengths))
    return found


def waits_are_the_network(trace):
    found = find_bottleneck(trace)
    return found | {"cause": "exposed", "rank": -1} if found["cause"] == "straggler" else found


def hidden_bytes_count_too(trace):
    found = find_bottleneck(trace)
    if found["cause"] == "exposed":
        found["lost_s"] = sum(trace.busy_s(rank, "send") for rank in range(trace.ranks)) / trace.ranks
    return found


def every_pause_is_a_bubble(trace):
    idle = [trace.duration_s - trace.busy_s(rank) for rank in range(trace.ranks)]
    return {"cause": "bubble", "rank": -1, "lost_s": sum(idle) / trace.ranks}


def always_finds_something(trace):
    found = find_bottleneck(trace)
    return found | {"cause": "exposed", "lost_s": 0.0} if found["cause"] == "compute" else found


def sum_over_ranks(trace):
    found = find_bottleneck(trace)
    return found | {"lost_s": found["lost_s"] * trace.ranks}


CHEATS = [  # (answer, the test that sees through it, what it says)
    (sum_over_ranks, 0, r"a trace of \d ranks: data costs .* ms, expected .* ms\n.*That is the sum of all ranks"),
    (hidden_bytes_count_too, 1, "exposed costs .*\n.*Communication beside computing costs nothing"),
    (every_pause_is_a_bubble, 1, "the cause is 'bubble', expected 'exposed'\n.*Not every pause is a bubble"),
    (always_finds_something, 2, "the cause is 'exposed', expected 'compute'\n.*below a tenth"),
    (blames_who_waits_longest, 3, r"straggler is laid to rank \d, expected \d\n.*who waits least"),
    (waits_are_the_network, 4, "the cause is 'exposed', expected 'straggler'\n.*no byte moves"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def asks_the_course(trace):
    found = explain(trace)
    return {"cause": found.cause, "rank": found.rank, "lost_s": found.share * trace.duration_s}


def test_the_package_s_own_is_not_an_answer():
    assert_found_out(NAME, asks_the_course, 0, "asks_the_course uses parallel_lab.performance")


def by_moments(trace):
    """Not a cheat: each stretch between two events, one after the other."""
    names, lost = ("compute", "data", "launch", "straggler", "bubble", "exposed"), []
    joined = {}
    for s in trace.spans:
        if s.kind in ("all_reduce", "send"):
            joined[name_of(s)] = max(s.start_s, joined.get(name_of(s), 0.0))
    for rank in range(trace.ranks):
        wanted, own = claims(trace, rank, joined), dict.fromkeys(names, 0.0)
        edges = sorted({0.0, trace.duration_s, *(edge for each in wanted.values() for pair in each for edge in pair)})
        for start, end in pairwise(edges):
            here = (name for name in names if any(a <= start and end <= b for a, b in wanted[name]))
            if name := next(here, ""):
                own[name] += end - start
        lost.append(own)
    mean = {name: sum(own[name] for own in lost) / trace.ranks for name in names}
    cause = max(names[1:], key=lambda name: mean[name])
    cause = cause if mean[cause] >= 0.1 * trace.duration_s else "compute"
    late = min(range(trace.ranks), key=lambda rank: lost[rank]["straggler"])
    return {"cause": cause, "rank": late if cause == "straggler" else -1, "lost_s": mean[cause]}


def test_another_right_answer_passes():
    assert_passes(NAME, by_moments)


def no_bubble(trace):
    found = find_bottleneck(trace)
    return found | {"cause": "exposed"} if found["cause"] == "bubble" else found


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, waits_are_the_network, "expected 'straggler'")
    assert_ends_a_step(NAME, 2, no_bubble, "the cause is 'exposed', expected 'bubble'")
