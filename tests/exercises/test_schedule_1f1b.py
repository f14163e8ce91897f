"""`schedule_1f1b`: the usual wrong orders fail, and the message says what they cost."""

import pytest
from grading import assert_found_out, by_value

by_value(__name__)
NAME = "schedule_1f1b"


def rows_of(p, m, ahead_of, drop=0):
    """Warm-up, pairs and cool-down, where stage i runs `ahead_of(i)` forwards first."""
    rows = []
    for s in range(p):
        ahead = min(ahead_of(s), m)
        row = [f"F{mb}" for mb in range(ahead)]
        for mb in range(m - ahead):
            row += [f"F{ahead + mb}", f"B{mb}"]
        rows.append(row + [f"B{mb}" for mb in range(m - ahead, m - drop * bool(ahead))])
    return rows


def gpipe(p, m):
    return [[f"{kind}{mb}" for kind in "FB" for mb in range(m)]] * p


def last_backward_forgotten(p, m):
    return rows_of(p, m, lambda s: p - 1 - s, drop=1)


def one_forward_too_few(p, m):
    return rows_of(p, m, lambda s: max(p - 2 - s, 0))


def warm_up_of_the_first_stage_everywhere(p, m):
    return rows_of(p, m, lambda s: p - 1)


def warm_up_from_the_wrong_end(p, m):
    return rows_of(p, m, lambda s: s)


def warm_up_longer_than_the_batch(p, m):
    rows = []
    for s in range(p):
        ahead = p - 1 - s
        row = [f"F{mb}" for mb in range(ahead)]
        for mb in range(m - ahead):
            row += [f"F{ahead + mb}", f"B{mb}"]
        rows.append(row + [f"B{mb}" for mb in range(max(m - ahead, 0), m)])
    return rows


CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        gpipe,
        2,
        "p = 4, m = 8: stage 0 holds the activations of 8 microbatches at once, 1F1B 4\n(.*\n)*.*GPipe's memory",
    ),
    (last_backward_forgotten, 0, "p = 4, m = 8: stage 0 never runs B7"),
    (one_forward_too_few, 1, "p = 4, m = 8: the step takes \\d+, 1F1B 33, (.*\n)*.*How many forwards must stage i"),
    (warm_up_of_the_first_stage_everywhere, 2, "stage 1 holds the activations of 4 microbatches at once, 1F1B 3"),
    (warm_up_from_the_wrong_end, 0, "p = 4, m = 8: this plan can never finish: rank .* waits at"),
    (warm_up_longer_than_the_batch, 4, "p = 4, m = 2: stage 0 runs F2; the passes are F0 to F1, B0 to B1"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)
