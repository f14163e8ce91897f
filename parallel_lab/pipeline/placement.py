"""Which rank holds which stages, read from the plan: the one place that knows is the schedule.

Plain schedules have stage s on rank s; looped ones deal p*v stages out like cards, stage s on rank s mod p; V shapes go
down the ranks and up again, stage s on rank s for s < p and on rank 2p - 1 - s after the turn.
"""

from parallel_lab.plan import COMPUTE, Plan


def placement(plan: Plan) -> list[int]:
    """The rank of each stage of `plan`.

    Raises:
        ValueError: A stage has passes on two ranks, or a stage below the highest has none.
    """
    ranks: dict[int, int] = {}
    for op in plan:
        if op.lane == COMPUTE and ranks.setdefault(op.part, op.rank) != op.rank:
            raise ValueError(f"stage {op.part} has passes on rank {ranks[op.part]} and on rank {op.rank}")
    if absent := set(range(len(ranks))) - ranks.keys():
        raise ValueError(f"stage {min(absent)} has no pass in this plan, which has stage {max(ranks)}")
    return [ranks[stage] for stage in range(len(ranks))]


def stages_of(plan: Plan, rank: int) -> list[int]:
    """The stages that `rank` holds, first to last."""
    return sorted({op.part for op in plan.rows[rank] if op.lane == COMPUTE})
