"""Caps: the model against its closed form and a fine grid, the choice against a linear program, race to idle."""

import random

import numpy as np
import pytest
from scipy.optimize import linprog

from parallel_lab.systems.energy import Chip, Setting, least_energy, race_to_idle_j
from parallel_lab.systems.energy.caps import energy_j

ROWS = [Setting(100, 2.0, 90), Setting(150, 1.3, 120), Setting(200, 1.05, 165), Setting(250, 1.0, 200)]


def test_best_clock_has_a_closed_form():
    """Without a part that the clock leaves alone it is the cube root of static over twice dynamic power."""
    chip = Chip(static_w=100, dynamic_w=300, least=0.1)
    assert chip.best(1.0) == pytest.approx((100 / 600) ** (1 / 3))
    assert Chip(600, 300).best(1.0) == 1.0  # from P_0 = 2 P_1 on, full speed
    assert Chip(0, 300).best(1.0) == pytest.approx(0.3)  # slower is always cheaper: the lowest clock
    assert Chip(100, 300, exponent=1.0).best(1.0) == 1.0  # the voltage can sink no further: nothing to gain


@pytest.mark.parametrize("other_s", [0.0, 0.5, 3.0])
def test_best_clock_is_that_of_a_fine_grid(other_s):
    chip = Chip(static_w=80, dynamic_w=320)
    grid = np.linspace(0.3, 1, 20001)
    best = grid[np.argmin([chip.energy_j(clock, 1.0, other_s) for clock in grid])]
    assert chip.best(1.0, other_s) == pytest.approx(best, abs=1e-4)
    assert chip.best(1.0, other_s) <= chip.best(1.0) + 1e-9  # what the clock does not shorten moves it down


def test_clock_under_a_cap():
    chip = Chip(static_w=100, dynamic_w=300)
    assert chip.power_w(chip.clock_at(250)) == pytest.approx(250)
    assert chip.clock_at(1000) == 1.0 and chip.clock_at(50) == 0.3


def test_idle_power_changes_the_best_cap():
    """Given back at the end 150 W is best, with 156 J a step; staying on at 60 W it is the slowest cap."""
    given_back = least_energy(ROWS, 1000, deadline_s=2500)
    stays_on = least_energy(ROWS, 1000, deadline_s=2500, idle_w=60)
    assert given_back.steps[0][0].limit_w == 150 and given_back.joules == pytest.approx(1000 * 156)
    assert stays_on.steps[0][0].limit_w == 100
    assert stays_on.joules == pytest.approx(1000 * 2.0 * 90 + 500 * 60)
    assert stays_on.joules == pytest.approx(race_to_idle_j(90, 60, 2000, 2500))


def test_a_deadline_that_no_cap_keeps():
    with pytest.raises(ValueError, match="the fastest needs 1000 s"):
        least_energy(ROWS, 1000, deadline_s=999)
    assert least_energy(ROWS, 1000, deadline_s=1000).steps[0][0].limit_w == 250


def drawn(dice):
    """A table as GPUs have it, and sometimes a row that is worse in both."""
    seconds = sorted(dice.uniform(1, 3) for _ in range(6))
    return [Setting(300 - 25 * k, each, dice.uniform(80, 300) / each**0.7) for k, each in enumerate(seconds)]


@pytest.mark.parametrize("seed", range(20))
def test_two_caps_are_the_linear_program_s(seed):
    dice = random.Random(seed)
    rows, steps = drawn(dice), 500
    quickest = min(row.step_s for row in rows) * steps
    deadline_s, idle_w = quickest * dice.uniform(1, 2.5), dice.choice([0.0, 40.0, 70.0])
    found = least_energy(rows, steps, deadline_s=deadline_s, idle_w=idle_w, caps=2)
    above = [row.step_j - idle_w * row.step_s for row in rows]
    program = linprog(
        above, A_ub=[[row.step_s for row in rows]], b_ub=[deadline_s], A_eq=[[1.0] * len(rows)], b_eq=[steps]
    )
    assert found.joules == pytest.approx(program.fun + idle_w * deadline_s, rel=1e-9)
    assert found.joules <= least_energy(rows, steps, deadline_s=deadline_s, idle_w=idle_w).joules * (1 + 1e-12)
    assert (found.seconds, found.joules) == pytest.approx(energy_j(found.steps, deadline_s, idle_w))
