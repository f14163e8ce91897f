"""Gang scheduling: all GPUs of a job at once, or none.

A step of training ends with a collective that needs every rank. So a job that holds 7 of its 8 GPUs does nothing, and
keeps 7 from others. All policies of this room but one start a job whole; `OneByOne` is that one. It places GPUs as a
scheduler does that knows processes and no jobs: each free GPU goes to the job that has fewest, in the order of arrival.
Two jobs of 8 on a cluster of 8 then hold 4 each, and wait for each other for ever: each holds what the other one needs,
nobody gives anything back, and nothing is taken away (the conditions of Coffman et al. 1971).

All or nothing breaks the second of them: who waits holds nothing. Gangs have a price. GPUs stay idle while a large job
waits for the last of them, which is what backfilling fills.
"""

from collections.abc import Sequence

from parallel_lab.systems.scheduling.cluster import Progress
from parallel_lab.systems.scheduling.simulator import Decision


class OneByOne:
    """Places single GPUs, as if the ranks of a job had nothing to do with each other."""

    name = "one by one"

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """Each free GPU to the job that holds fewest of those that need more."""
        held = {one: one.gpus for one in [*running, *waiting]}
        while free and (short := [one for one in held if held[one] < one.job.gpus]):
            held[min(short, key=held.__getitem__)] += 1
            free -= 1
        return Decision(held)


def idle_in_gangs(held: Sequence[Progress]) -> int:
    """GPUs that are held by jobs that cannot work, because they hold too few."""
    return sum(one.gpus for one in held if one.gpus < one.job.least)
