"""A thousand simulated learners whose stability is known: the load of a day stays bounded, recall on the date is met.

A learner recalls with the chance that FSRS gives, and forgets otherwise; a coin says whether a new atom is known. What
falls to a recall of 0.9 is due, so between two reviews the mean of R, `((1+F)^(1-w) - 1)/(F (1-w))` with
`F = 0.9^(-1/w) - 1`, is 0.943: that is the aim on a date that falls anywhere between two reviews.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import mean

import pytest

from parallel_lab.interview.memory import reviewed as after
from parallel_lab.interview.memory import scheduler
from parallel_lab.interview.queue import Item, in_order, within

LEARNERS, ATOMS, DAYS, NEW, MINUTES = 1000, 12, 30, 1, 4
START = datetime(2026, 11, 28, 9, tzinfo=UTC)
DATE = START + timedelta(days=DAYS)
W = scheduler().parameters[20]
F = 0.9 ** (-1 / W) - 1
AIM = ((1 + F) ** (1 - W) - 1) / (F * (1 - W))


def learner(seed: int) -> tuple[float, list[float]]:
    """Recall on the date over all atoms, and the seconds of each day."""
    dice, known, loads = Random(seed), {}, []
    fresh = [Item(f"atom-{n}", "definition", "01") for n in range(ATOMS)]
    for n in range(DAYS):
        now = START + timedelta(days=n)
        due = within(in_order(known.values(), now, DATE)[0], 60 * MINUTES)
        new = within(fresh[:NEW], 60 * MINUTES - sum(item.seconds for item in due))
        del fresh[: len(new)]
        loads.append(sum(item.seconds for item in [*due, *new]))
        for item in [*due, *new]:
            chance = item.memory.recall(now) if item.memory else 0.5
            rating = 3 if dice.random() < chance else 1
            known[item.key] = replace(item, memory=after(item.memory, now, rating, "quiz", DATE))
    assert not fresh, "the plan has room for every atom"
    return mean(item.memory.recall(DATE) for item in known.values()), loads


@pytest.fixture(scope="module")
def crowd():
    return [learner(seed) for seed in range(LEARNERS)]


def test_recall_on_the_date_is_within_three_points_of_the_aim(crowd):
    assert pytest.approx(0.943, abs=5e-4) == AIM
    found = [recall for recall, _ in crowd]
    assert abs(mean(found) - AIM) < 0.03
    spread = mean((one - mean(found)) ** 2 for one in found) ** 0.5
    assert spread < 0.03, spread


def test_the_load_of_a_day_stays_bounded(crowd):
    assert max(max(loads) for _, loads in crowd) <= 60 * MINUTES
    by_day = [mean(loads[n] for _, loads in crowd) for n in range(DAYS)]
    learning = ATOMS // NEW
    assert max(by_day[learning + 7 :]) < mean(by_day[:learning]), "what is due falls once nothing new is begun"
