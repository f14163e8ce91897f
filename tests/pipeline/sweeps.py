"""All schedules with one call each: what the tests of this folder share."""

from parallel_lab import pipeline
from parallel_lab.pipeline.formulas import SCHEDULES
from parallel_lab.plan import Plan
from parallel_lab.simulate import PassCost

LOOPED, V_SHAPED = ("interleaved", "looped_bfs"), ("zb_v", "dualpipe_v")


def sizes(*ranks: int):
    """Every schedule with so many ranks, few and many microbatches, and several chunks where they are free."""
    for p in ranks:
        counts = {1, 2, 3, p - 1, p, p + 1, 2 * p - 1, 2 * p, 3 * p, 40} - {0}
        for name in SCHEDULES:
            for v in (1, 2, 3) if name in LOOPED else (1,):
                for m in sorted(counts):
                    if name != "interleaved" or m % p == 0:
                        yield name, p, m, v


def chunks(name: str, v: int = 1) -> int:
    """The chunks on a rank."""
    return 2 if name in V_SHAPED else v


def plan_of(name: str, p: int, m: int, v: int = 1) -> Plan:
    """The schedule of that name."""
    return getattr(pipeline, name)(p, m, *([v] if name in LOOPED else []))


def cost(name: str, v: int = 1, passes=(1, 1, 1), **options) -> PassCost:
    """F, I and W of a rank, of which each chunk takes its part."""
    f, i, w = (one / chunks(name, v) for one in passes)
    return PassCost(f, i + w, i, w, **options)
