"""Drills of chapter 20: the best clock, a mixture of two caps, energy to a target, a straggler, and carbon."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.systems.energy.caps import Chip, Setting, least_energy
from parallel_lab.systems.energy.carbon import kwh, tonnes
from parallel_lab.systems.energy.waiting import straggler_share


@problem("energy-clock", chapter="20")
def energy_clock(dice: Random) -> Drawn:
    """What the best clock saves."""
    static, dynamic = dice.choice((60, 80, 100, 120)), dice.choice((240, 280, 320))
    chip = Chip(static, dynamic)
    best = chip.best(1.0)
    less = 100 * (1 - chip.energy_j(best, 1.0) / chip.energy_j(1.0, 1.0))
    return Drawn(
        question=f"A chip draws {static} W + {dynamic} W · ν³ at the relative clock ν, and computes in 1/ν of the time."
        " How many per cent of the energy at full clock does the best clock save?",
        answer=less,
        unit="%",
        steps=(
            f"Energy over time at full clock: {static}/ν + {dynamic} ν². Slope 0: ν³ = {static} / (2 · {dynamic}).",
            f"ν = {best:.4g}: {static / best:.4g} + {dynamic * best**2:.4g} = {chip.energy_j(best, 1.0):.4g} W,"
            f" against {static + dynamic} W; the work takes {1 / best:.3g} times as long.",
            f"{less:.4g} % less.",
        ),
        wrong=(
            (100 - less, "That is what is left."),
            (100 * (1 - best), "That is how much slower the clock is."),
            (
                100 * (1 - (static + dynamic * best**3) / (static + dynamic)),
                "You compared power. The work takes longer at a slower clock.",
            ),
            (
                100 * (1 - chip.energy_j((static / dynamic) ** (1 / 3), 1.0) / chip.energy_j(1.0, 1.0)),
                "You made both parts of the power equal. The slope of the energy is 0 elsewhere.",
            ),
            (100 * (1 - best**2), "You left out the static power. It burns longer at a slower clock."),
        ),
    )


@problem("energy-deadline", chapter="20")
def energy_deadline(dice: Random) -> Drawn:
    """How many steps run under the slow cap."""
    slow = Setting(150, dice.choice((1.3, 1.4, 1.5)), dice.choice((140, 145, 150)))
    fast = Setting(250, 1.0, dice.choice((230, 240)))
    steps, deadline = 1000, dice.choice((1100, 1150, 1200))
    found = least_energy([slow, fast], steps, deadline_s=deadline, caps=2)
    share = {row.limit_w: count for row, count in found.steps}[150]
    return Drawn(
        question=f"1,000 steps must be over in {deadline} s. A step takes {slow.step_s} s at {slow.power_w:g} W under"
        f" a cap of 150 W, and 1.0 s at {fast.power_w:g} W under 250 W. The GPU is given back at the end. How many kJ"
        " does the best mixture of the two take?",
        answer=found.joules / 1e3,
        unit="kJ",
        steps=(
            f"A step costs {slow.step_j:.4g} J slow and {fast.step_j:.4g} J fast: as many slow ones as fit.",
            f"slow · {slow.step_s} + (1000 - slow) · 1.0 = {deadline}: slow = {share:.4g}.",
            f"{share:.4g} · {slow.step_j:.4g} + {steps - share:.4g} · {fast.step_j:.4g} = {found.joules / 1e3:.4g} kJ.",
        ),
        wrong=(
            (steps * slow.step_j / 1e3, "You ran all steps under the low cap. Then it is too late."),
            (steps * fast.step_j / 1e3, "You ran all steps under the high cap. There is time to save energy."),
            (deadline * slow.power_w / 1e3, "You drew the low cap's power until the deadline. Some steps run faster."),
            ((steps - share) / 1e3 * slow.step_j + share / 1e3 * fast.step_j, "You swapped the two settings."),
            (steps * (slow.step_j + fast.step_j) / 2e3, "You took half of each."),
        ),
    )


@problem("energy-target", chapter="20")
def energy_target(dice: Random) -> Drawn:
    """Two batches, to one accuracy."""
    small, large = dice.randint(20, 40), dice.randint(50, 90)
    seconds, quick = dice.randint(40, 60), dice.randint(25, 38)
    watts, more = dice.randint(150, 190), dice.randint(200, 250)
    one, other = small * seconds * watts, large * quick * more
    return Drawn(
        question=f"To one accuracy a batch of 128 needs {small} epochs of {seconds} s at {watts} W, a batch of 1,024"
        f" needs {large} epochs of {quick} s at {more} W. How many times the energy of the small batch does the large"
        " one take?",
        answer=other / one,
        steps=(
            f"Epochs, seconds and watts multiply: {small} · {seconds} · {watts} = {one / 1e3:.4g} kJ.",
            f"{large} · {quick} · {more} = {other / 1e3:.4g} kJ. Of one epoch the ratio is only"
            f" {quick * more / (seconds * watts):.3g}.",
            f"{other / one:.4g} times.",
        ),
        wrong=(
            (quick * more / (seconds * watts), "That is one epoch. The large batch needs more of them."),
            (large * quick / (small * seconds), "You compared times. Power differs as well."),
            (large * more / (small * watts), "You left out how long an epoch takes."),
            (one / other, "You divided the other way around."),
        ),
    )


@problem("energy-wait", chapter="20")
def energy_wait(dice: Random) -> Drawn:
    """What a straggler burns."""
    n, step, late, waiting = dice.choice((8, 16, 64)), 1.0, dice.choice((0.1, 0.2, 0.5)), dice.choice((0.5, 0.6, 0.7))
    share = 100 * straggler_share(n, step, late, waiting)
    waited = (n - 1) * late * waiting
    return Drawn(
        question=f"{n} ranks compute for {step} s per step, one of them for {late} s longer. A rank that waits in an"
        f" all-reduce draws {waiting:g} of the power of one that computes. How many per cent of the step's energy go"
        " into waiting?",
        answer=share,
        unit="%",
        steps=(
            f"Waiting, in units of the power at work: {n - 1} · {late} · {waiting} = {waited:.4g} s.",
            f"Working: {n} · {step} + {late} = {n * step + late:.4g} s.",
            f"{waited:.4g} / {waited + n * step + late:.4g} = {share:.4g} %.",
        ),
        wrong=(
            (
                100 * waited / (n * step + late),
                "You divided by the work alone. The step's energy holds the waiting, too.",
            ),
            (100 * late * waiting / (late * waiting + n * step + late), "You let one rank wait. All but one do."),
            (100 * waited / waiting / (waited / waiting + n * step + late), "You let those who wait draw full power."),
            (
                100 * n * late * waiting / (n * late * waiting + n * step),
                "You let the slow rank wait, too. It computes.",
            ),
        ),
    )


@problem("energy-carbon", chapter="20")
def energy_carbon(dice: Random) -> Drawn:
    """Hours to tonnes."""
    hours, watts = dice.choice((200_000, 500_000, 1_500_000)), dice.choice((650, 900, 1200))
    pue, intensity = dice.choice((1.08, 1.1, 1.2, 1.5)), dice.choice((0.06, 0.2, 0.4))
    energy = kwh(hours, watts, pue)
    found = tonnes(energy, intensity)
    return Drawn(
        question=f"A run took {hours:,} GPU hours. A GPU with its share of the server drew {watts} W on average, the"
        f" PUE is {pue}, the grid emits {intensity} kg per kWh. How many tonnes of CO2?",
        answer=found,
        unit="t",
        steps=(
            f"{hours:,} h · {watts / 1e3} kW = {hours * watts / 1e6:,.4g} MWh of servers.",
            f"Times {pue}, once: {energy / 1e3:,.4g} MWh.",
            f"Times {intensity} t per MWh: {found:,.4g} t.",
        ),
        wrong=(
            (found * pue, "You multiplied by the PUE twice."),
            (found / pue, "You left out the PUE."),
            (found / pue * (pue - 1), "That is cooling and conversion alone."),
            (found / pue / pue, "You divided by the PUE. The building draws more than its servers."),
            (energy / 1e3, "Those are MWh. The question asks for CO2."),
        ),
    )
