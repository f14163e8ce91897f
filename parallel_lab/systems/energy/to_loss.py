"""Energy to a result: what an epoch draws, times the epochs that this batch needs.

Watts say nothing about what a model costs, joules per epoch say half of it. Energy to a target is

    epochs to the target (batch)  *  seconds per epoch (batch, cap)  *  watts (batch, cap)

A larger batch makes an epoch quicker and, past the critical batch, needs more epochs. The cap changes the last two
factors and never the first: the same steps are computed. So batch and cap are chosen together, from the same table.
"""

from collections.abc import Sequence

from parallel_lab.systems.energy.tables import Reached


def cheapest(points: Sequence[Reached]) -> Reached:
    """The batch and cap of least energy."""
    return min(points, key=lambda each: each.joules)


def quickest(points: Sequence[Reached]) -> Reached:
    """The batch and cap of least time."""
    return min(points, key=lambda each: each.seconds)


def habit(points: Sequence[Reached]) -> Reached:
    """The largest batch that reaches the target, at the highest cap: what one takes without looking."""
    return max(points, key=lambda each: (each.batch, each.limit_w))


def compared(point: Reached, base: Reached) -> tuple[float, float]:
    """(share of energy saved, share of time lost) of a point against another; negative where it is the other way."""
    return 1 - point.joules / base.joules, point.seconds / base.seconds - 1


def front(points: Sequence[Reached]) -> list[Reached]:
    """The points that no other beats in both time and energy, the quickest first."""
    found: list[Reached] = []
    for each in sorted(points, key=lambda each: (each.seconds, each.joules)):
        if not found or each.joules < found[-1].joules:
            found.append(each)
    return found


def cost(point: Reached, eta: float, top_w: float) -> float:
    """Zeus' cost, eta energy + (1 - eta) top_w time, in joules: eta = 1 asks for energy alone, 0 for time alone.

    Raises:
        ValueError: eta is not between 0 and 1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta}: expected 0 to 1")
    return eta * point.joules + (1 - eta) * top_w * point.seconds
