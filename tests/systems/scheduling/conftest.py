"""What the tests of the simulated cluster share: jobs of all sizes, and where the original traces are."""

import random
from pathlib import Path

import pytest

from parallel_lab.systems.scheduling import Job

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.fixture(scope="session")
def original():
    """The path of an original trace; the test is skipped where it is not there."""

    def find(name: str) -> Path:
        if not (path := DATA / name).is_file():
            pytest.skip(f"{path} is not there; trace.py says where the original comes from")
        return path

    return find


@pytest.fixture
def mixed():
    """Random jobs whose times are whole seconds, on a cluster of 8."""

    def make(seed: int, count: int = 120, *, largest: int = 8, gap: int = 6, most: float = 1.0) -> list[Job]:
        dice, now, jobs = random.Random(seed), 0, []
        for number in range(count):
            now += dice.randrange(gap)
            gpus, lasts = min(largest, 2 ** dice.randrange(4)), dice.randint(1, 9) ** dice.randint(1, 2)
            limit = None if most == 1 else float(round(lasts * most ** dice.random()))
            jobs.append(Job(f"j{number}", float(now), gpus, float(lasts), limit_s=limit))
        return jobs

    return make
