"""Quotas: so many GPUs are reserved for each team; what a team leaves idle, others may borrow, and it can be reclaimed.

A *hard* quota is simple, and GPUs of a team that has no jobs stand idle beside the line of another one. *Borrowing*
fills them; but then a team whose GPUs are lent out waits for strangers' jobs to end. *Reclaiming* stops the borrowers:
a job within its team's quota starts at once, provided that the quotas together do not exceed the cluster. So a quota
becomes a guarantee, paid for by borrowers, who lose the work since their last checkpoint. Kubernetes' Kueue calls the
three nominal quota, borrowing within a cohort, and reclaimWithinCohort.

A quota counts GPUs. Where its GPUs are is `placement`'s subject: 8 free GPUs on 8 nodes are no node of 8 (HiveD, Zhao
et al., OSDI 2020, reserves whole nodes and racks for this reason).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parallel_lab.systems.scheduling.cluster import Progress
from parallel_lab.systems.scheduling.priorities import needed
from parallel_lab.systems.scheduling.simulator import Decision


@dataclass(frozen=True)
class Quotas:
    """Teams (`Job.user`) with reserved GPUs.

    A team's jobs go in the order of arrival, and one that does not fit is skipped.

    Attributes:
        quotas: GPUs of each team; 0 for a team that is not named.
        borrows: a team may hold more than its quota where GPUs are free and no job within its quota can take them.
        reclaims: a job within its quota may stop jobs of teams above theirs, the youngest first.
        name: for tables.
    """

    quotas: Mapping[str, int]
    borrows: bool = True
    reclaims: bool = True
    name: str = "quotas"

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """First those within their quota, with reclaiming; then those who borrow what is left."""
        held = {one.job.user: 0 for one in [*running, *waiting]}
        for one in running:
            held[one.job.user] += one.gpus
        changes: dict[Progress, int] = {}
        for one in waiting:
            if held[one.job.user] + one.job.gpus <= self.quotas.get(one.job.user, 0):
                left = [other for other in running if other not in changes]
                stopped = self.reclaimed(left, held, one.job.gpus - free) if one.job.gpus > free else []
                if stopped is not None:
                    free += self._apply(stopped, one, held, changes)
        for one in waiting if self.borrows else ():
            if one not in changes and one.job.gpus <= free:
                free += self._apply([], one, held, changes)
        return Decision(changes)

    def reclaimed(self, running: Sequence[Progress], held: Mapping[str, int], wanted: int) -> list[Progress] | None:
        """Borrowers' jobs with so many GPUs, the youngest first; None where there are not so many."""
        stopped: list[Progress] = []
        now = dict(held)
        for one in sorted(running, key=lambda one: -one.since_s) if self.reclaims else ():
            if wanted > 0 and now[one.job.user] > self.quotas.get(one.job.user, 0):
                now[one.job.user] -= one.gpus
                wanted -= one.gpus
                stopped.append(one)
        return needed(stopped, -wanted) if wanted <= 0 else None

    @staticmethod
    def _apply(stopped: list[Progress], one: Progress, held: dict[str, int], changes: dict[Progress, int]) -> int:
        """Notes who stops and who starts, and returns by how much the free GPUs change."""
        for other in stopped:
            held[other.job.user] -= other.gpus
        held[one.job.user] += one.job.gpus
        changes |= dict.fromkeys(stopped, 0) | {one: one.job.gpus}
        return sum(other.gpus for other in stopped) - one.job.gpus
