"""`schedule_zb_h1`: the usual wrong orders fail, and the message says what they cost."""

import pytest
from grading import assert_found_out, by_value

by_value(__name__)
NAME = "schedule_zb_h1"


def rows_of(p, m, ahead_of, lag_of, inner="FIW"):
    """Forwards first, then F, I and W in turn, where stage r is `lag_of(r)` W behind."""
    rows = []
    for r in range(p):
        ahead, lag = min(ahead_of(r), m), min(lag_of(r), m)
        row = [f"F{mb}" for mb in range(ahead)]
        for mb in range(m):
            turn = {"F": f"F{ahead + mb}" * (ahead + mb < m), "I": f"I{mb}", "W": f"W{mb - lag}" * (mb >= lag)}
            row += [turn[kind] for kind in inner if turn[kind]]
        rows.append(row + [f"W{mb}" for mb in range(m - lag, m)])
    return rows


def each_backward_cut_in_place(p, m):
    return rows_of(p, m, lambda r: p - 1 - r, lambda r: 0)


def all_weights_last(p, m):
    return rows_of(p, m, lambda r: p - 1 - r, lambda r: m)


def as_h2(p, m):
    return rows_of(p, m, lambda r: 2 * (p - 1 - r), lambda r: 2 * r)


def lag_from_the_wrong_end(p, m):
    return rows_of(p, m, lambda r: p - 1 - r, lambda r: p - 1 - r)


def weights_before_input(p, m):
    return rows_of(p, m, lambda r: p - 1 - r, lambda r: 0, inner="FWI")


def whole_backwards(p, m):
    return [[one.replace("I", "B") for one in row if one[0] != "W"] for row in each_backward_cut_in_place(p, m)]


CHEATS = [  # (answer, the test that sees through it, what it says)
    (each_backward_cut_in_place, 1, "p = 4, m = 8: the step takes 30, ZB-H1 27, .*(.*\n)*.*1F1B with each B cut into"),
    (
        all_weights_last,
        2,
        "stage 0 holds the activations of 8 microbatches at once, ZB-H1 4\n(.*\n)*.*All W at the end",
    ),
    (as_h2, 2, "p = 4, m = 8: stage 0 holds the activations of 7 microbatches at once, ZB-H1 4"),
    (lag_from_the_wrong_end, 1, "p = 4, m = 8: the step takes \\d+, ZB-H1 27"),
    (weights_before_input, 0, "p = 4, m = 8: this plan can never finish: rank 0 waits at"),
    (whole_backwards, 0, "p = 4, m = 8: stage 0 runs B0; the passes are F0 to F7, I0 to I7, W0 to W7"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)
