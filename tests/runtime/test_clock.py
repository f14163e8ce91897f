"""Waiting for a moment: never too early, and made shorter by what the system is late."""

import time

from parallel_lab.runtime.rank.waiting import MOST_S, PreciseSleep


def test_never_ends_before_the_moment():
    clock = PreciseSleep()
    for _ in range(20):
        moment_s = time.monotonic() + 2e-3
        clock.until(moment_s)
        assert time.monotonic() >= moment_s


def test_a_moment_that_is_over_does_not_wait():
    waits = []
    PreciseSleep(waits.append).until(time.monotonic() - 1)
    assert not waits


def test_waits_are_made_shorter_by_what_they_were_late():
    asked = []

    def late(seconds):
        asked.append(seconds)
        time.sleep(seconds + 2 * MOST_S)  # later than any lateness that counts

    clock = PreciseSleep(late)
    for _ in range(30):
        clock.until(time.monotonic() + 5 * MOST_S)
    assert 0.9 * MOST_S < clock.late_s <= MOST_S
    assert asked[-1] <= 4.1 * MOST_S < max(asked) <= 5 * MOST_S
