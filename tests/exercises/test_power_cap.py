"""`power_cap`: watts for joules, caps for watts, the quickest one, no deadline, idle power forgotten, and one cap."""

from itertools import pairwise

import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

by_value(__name__)
NAME = "power_cap"
power_cap = solutions(NAME)[NAME]


def in_time(rows, steps, deadline_s):
    return [row for row in rows if row[1] * steps <= deadline_s]


def chosen_by(rows, steps, deadline_s, key):
    return [(row[0], steps) for row in sorted(in_time(rows, steps, deadline_s), key=key)[:1]]


def least_power(rows, steps, deadline_s, idle_w, caps):
    return chosen_by(rows, steps, deadline_s, lambda row: row[2])


def caps_for_watts(rows, steps, deadline_s, idle_w, caps):
    return chosen_by(rows, steps, deadline_s, lambda row: row[0] * row[1])


def race_to_idle(rows, steps, deadline_s, idle_w, caps):
    return chosen_by(rows, steps, deadline_s, lambda row: row[1])


def no_deadline(rows, steps, deadline_s, idle_w, caps):
    return [(min(rows, key=lambda row: row[1] * row[2])[0], steps)]


def forgets_idling(rows, steps, deadline_s, idle_w, caps):
    return power_cap(rows, steps, deadline_s, 0.0, caps)


def one_cap(rows, steps, deadline_s, idle_w, caps):
    return power_cap(rows, steps, deadline_s, idle_w, 1)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (least_power, 0, r"takes [\d.]+ kJ, expected [\d.]+ kJ\n.*Watts are not joules"),
    (caps_for_watts, 0, r"expected [\d.]+ kJ\n.*A cap is a limit, and no measurement"),
    (race_to_idle, 0, r"expected [\d.]+ kJ\n.*That is the quickest cap"),
    (no_deadline, 1, r"takes [\d.]+ s\n.*quick enough at all"),
    (forgets_idling, 3, r"idling at .* W until then: .* expected [\d.]+ kJ\n.*stays on and idles"),
    (one_cap, 4, r"expected [\d.]+ kJ\n.*The deadline lies between two caps"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def other_forms(rows, steps, deadline_s, idle_w, caps):
    return [(0, steps)]


def test_what_is_no_plan_is_said():
    assert_found_out(NAME, no_deadline, 2, "no cap ends in time: expected an empty list")
    assert_found_out(NAME, other_forms, 0, r"expected a list of pairs \(a cap of the table, steps\)")
    assert_found_out(NAME, lambda *given: [], 0, "0 caps and 0 steps, expected at most 1")


def neighbors(rows, steps, deadline_s, idle_w, caps):
    """Mixes two caps that stand side by side in the sorted table."""
    best, ranked = power_cap(rows, steps, deadline_s, idle_w, 1), sorted(rows)
    for slow, fast in pairwise(ranked) if caps == 2 else ():
        if fast[1] * steps <= deadline_s < slow[1] * steps:
            share = (deadline_s / steps - fast[1]) / (slow[1] - fast[1])
            plan = [(slow[0], share * steps), (fast[0], (1 - share) * steps)]
            best = min(best, plan, key=lambda each: joules(rows, each, idle_w))
    return best


def whole_steps(rows, steps, deadline_s, idle_w, caps):
    plan = power_cap(rows, steps, deadline_s, idle_w, caps)
    return [(plan[0][0], int(plan[0][1])), (plan[1][0], steps - int(plan[0][1]))] if len(plan) == 2 else plan


def test_a_wrong_mixture_is_told_from_a_wrong_cap():
    assert_found_out(NAME, neighbors, 4, r"expected [\d.]+ kJ\n.*Another pair takes less")
    assert_found_out(NAME, whole_steps, 4, r"expected [\d.]+ kJ\n.*It need not be a whole number")
    assert_found_out(NAME, lambda rows, *given: [(rows[0][0], float("nan"))], 0, "not 0 or more")


def by_shares(rows, steps, deadline_s, idle_w, caps):
    """Not a cheat: a fine search over shares finds the same corner, since it lies on the deadline."""
    best = power_cap(rows, steps, deadline_s, idle_w, 1)
    for slow in rows if caps == 2 else ():
        for fast in rows:
            if fast[1] * steps <= deadline_s < slow[1] * steps:
                share = (deadline_s / steps - fast[1]) / (slow[1] - fast[1])
                plan = [(slow[0], share * steps), (fast[0], (1 - share) * steps)]
                best = min(best, plan, key=lambda each: joules(rows, each, idle_w))
    return best


def joules(rows, plan, idle_w):
    row_of = {row[0]: row for row in rows}
    return sum(n * row_of[cap][1] * (row_of[cap][2] - idle_w) for cap, n in plan)


def test_another_right_answer_passes():
    assert_passes(NAME, by_shares)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, forgets_idling, "stays on and idles")
    assert_ends_a_step(NAME, 2, one_cap, "The deadline lies between two caps")
