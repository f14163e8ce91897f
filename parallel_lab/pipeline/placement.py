"""Which rank holds which stages, read from the plan: the one place that knows is the schedule.

Plain schedules have stage i on rank i; looped ones deal p*v stages out like cards, stage i on rank i mod p; V shapes go
down the ranks and up again, stage i on rank i for i < p and on rank 2p - 1 - i after the turn.
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
