"""Tables of a GPU under power caps, drawn so that each usual mistake chooses another row than the right one.

Ranks make these tables themselves and import this module, so it uses no technique. A row is (cap in W, seconds of a
step, mean W meanwhile): the cap limits what is drawn while the GPU computes, and a part of each step is waiting.
"""

import random
from itertools import product

import torch

from parallel_lab.grading.rank_side import Case

Row = tuple[int, float, float]
CAPS_W = range(100, 325, 25)


def table(case: Case, rank: int, generator: torch.Generator) -> tuple[list[Row], int, float, float, int]:
    """The arguments of a call: rows, steps, deadline_s, idle_w and caps, of the kind that the setting names."""
    dice, kind = random.Random(generator.initial_seed()), str(case["kind"])
    while True:
        drawn = _drawn(dice, kind)
        if _telling(drawn, kind):
            return drawn


def _drawn(dice: random.Random, kind: str) -> tuple[list[Row], int, float, float, int]:
    static_w, dynamic_w = dice.uniform(80, 110), dice.uniform(130, 190)
    compute_s, other_s = dice.uniform(0.4, 0.6), dice.uniform(0.1, 0.4)
    rows = []
    for cap_w in CAPS_W:
        clock = min(1.0, max(0.1, (cap_w - static_w) / dynamic_w) ** (1 / 3) * dice.uniform(0.99, 1.01))
        seconds = compute_s / clock + other_s
        power_w = static_w + dynamic_w * clock**3 * (compute_s / clock) / seconds  # the cap limits computing
        rows.append((cap_w, round(seconds, 4), round(power_w * dice.uniform(0.98, 1.0), 1)))
    dice.shuffle(rows)
    steps = dice.randrange(800, 1200)
    times = sorted(each[1] for each in rows)
    reach = {"tight": 0.2, "no cap": -0.05, "two caps": 0.2}.get(kind, 1.2)
    deadline_s = round(steps * (times[0] + reach * (times[-1] - times[0])), 1)
    if kind == "no cap":
        deadline_s = round(0.95 * steps * times[0], 1)
    idle_w = round(dice.uniform(45, 60), 1) if kind in ("stays on", "two caps") else 0.0
    return rows, steps, deadline_s, idle_w, 2 if kind in ("two caps", "one is enough") else 1


def _telling(drawn: tuple[list[Row], int, float, float, int], kind: str) -> bool:
    """Whether the mistakes that this kind is there for choose another row."""
    rows, steps, deadline_s, idle_w, _ = drawn
    in_time = [row for row in rows if row[1] * steps <= deadline_s]
    if kind == "no cap":
        return not in_time
    if kind == "two caps" and not _skips_a_cap(rows, deadline_s / steps, idle_w):
        return False
    best = min(in_time, key=lambda row: (row[2] - idle_w) * row[1])
    others = {
        "loose": (min(in_time, key=_watts), min(in_time, key=_seconds), min(in_time, key=_capped)),
        "tight": (min(rows, key=_joules), min(in_time, key=_seconds)),
        "stays on": (min(in_time, key=_joules), min(in_time, key=_seconds), min(in_time, key=_capped)),
        "two caps": (min(rows, key=lambda row: (row[2] - idle_w) * row[1]),),
    }
    chosen = [best, *others.get(kind, ())]
    return len(set(chosen)) == len(chosen)


def _skips_a_cap(rows: list[Row], step_s: float, idle_w: float) -> bool:
    """Whether the two caps of the cheapest mixture with this mean time of a step are no neighbors in the table."""
    slow, quick = ([row for row in rows if (row[1] > step_s) == late] for late in (True, False))
    pairs = {pair: _mixed(*pair, step_s, idle_w) for pair in product(slow, quick)}
    (low_w, _, _), (high_w, _, _) = min(pairs, key=pairs.__getitem__)
    return abs(high_w - low_w) > CAPS_W.step


def _mixed(slow: Row, quick: Row, step_s: float, idle_w: float) -> float:
    share = (step_s - quick[1]) / (slow[1] - quick[1])
    return share * slow[1] * (slow[2] - idle_w) + (1 - share) * quick[1] * (quick[2] - idle_w)


def _seconds(row: Row) -> float:
    return row[1]


def _watts(row: Row) -> float:
    return row[2]


def _joules(row: Row) -> float:
    return row[1] * row[2]


def _capped(row: Row) -> float:
    return row[0] * row[1]
