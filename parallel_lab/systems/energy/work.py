"""Something to do for a while, whose energy is asked for."""

import time


def busy(seconds: float) -> int:
    """Keeps one core at work until so many seconds are over, and returns how many rounds that was."""
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        sum(range(10_000))
        rounds += 1
    return rounds
