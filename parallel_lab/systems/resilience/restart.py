"""A supervisor on the host: it starts a world of ranks, and starts it again when one has failed.

What torchrun does with `--max-restarts`: a rank that dies leaves the others in a collective that cannot end, so all are
ended, and all start again from the newest whole checkpoint. What was computed since then is lost. `launch` notices the
death, by the exit of the process, or by the calls of ranks that stand still, and ends the others.

The number of ranks may change from one attempt to the next, as with torchrun's `--nnodes=2:4`: the global batch and the
order of samples are the job's, not the world's.

Two things keep a supervisor from doing harm. Back-off: each failure without a new checkpoint in between doubles the
wait, up to a limit, so that a job that dies at its start does not load the storage again every second. A cap: after so
many restarts, or when the same exception comes twice at the same checkpoint, it gives up and says why; what fails each
time is a bug, and a restart mends only what was a fault.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parallel_lab.runtime import Fault, LaunchError, RankFailed, launch
from parallel_lab.systems.resilience.goodput import note
from parallel_lab.systems.resilience.job import Job, newest


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a restart."""

    first_s: float = 1.0
    factor: float = 2.0
    most_s: float = 60.0

    def wait_s(self, in_a_row: int) -> float:
        """The wait after so many failures without a new checkpoint in between, 1 for the first."""
        return min(self.most_s, self.first_s * self.factor ** (in_a_row - 1))


@dataclass(frozen=True)
class Attempt:
    """One start of the world."""

    ranks: int
    first: int  # the step of the checkpoint that it began from
    last: int  # that of the newest checkpoint when it ended
    why: str = (
        ""  # how it failed: `killed`, `exit`, the name of an exception, `Deadlock`, `TimedOut`; empty: it did not
    )
    rank: int = -1  # which rank failed first, where that is known
    waited_s: float = 0.0  # back-off before it


@dataclass
class Supervised:
    """A job that came to its end."""

    attempts: list[Attempt]
    results: list[Any]  # what the ranks of the last attempt returned

    @property
    def restarts(self) -> int:
        """How often the world was started again."""
        return len(self.attempts) - 1


class GaveUp(RuntimeError):
    """The job did not come to its end. The message says why, and the attempts tell the story."""

    def __init__(self, why: str, attempts: list[Attempt]) -> None:
        super().__init__(why)
        self.attempts = attempts


Size = int | Sequence[int] | Callable[[list[Attempt]], int]


@dataclass
class Supervisor:
    """Runs a job to its end, whatever happens to its ranks on the way.

    Attributes:
        job: What each rank runs.
        ranks: How many there are: a number, one for each attempt (the last one for all that follow), or a function of
            the attempts so far.
        restarts: The most that there may be.
        backoff: How long to wait before each.
        faults: For each attempt what `launch` injects into it.
        sleep: What waits.
        options: What else `launch` takes.
        attempts: What has happened.
    """

    job: Job
    ranks: Size = 4
    restarts: int = 3
    backoff: Backoff = Backoff()
    faults: Sequence[Sequence[Fault]] = ()
    sleep: Callable[[float], None] = time.sleep
    options: dict[str, Any] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)

    def run(self) -> Supervised:
        """Starts the ranks until they have come to the end.

        Raises:
            GaveUp: there were too many restarts, or the same error twice without progress.
        """
        waited_s = 0.0
        while (results := self._attempt(waited_s)) is None:
            self._give_up()
            waited_s = self.backoff.wait_s(self._in_a_row())
            self.sleep(waited_s)
        note(self.job.log, "end")
        return Supervised(self.attempts, results)

    def _attempt(self, waited_s: float) -> list[Any] | None:
        """Starts the world once; returns what its ranks return, or None where one has failed."""
        number, first, ranks = len(self.attempts), newest(self.job.where), self._size()
        faults = self.faults[number] if number < len(self.faults) else ()
        why, rank, results = "", -1, None
        note(self.job.log, "launch", first)
        try:
            how = {"faults": faults, "echo": False, "record": False, "grace_s": 0.0} | self.options
            results = launch(self.job, ranks=ranks, **how).results
        except LaunchError as error:
            note(self.job.log, "noticed")
            why, rank = error.cause if isinstance(error, RankFailed) else type(error).__name__, error.rank
        self.attempts.append(Attempt(ranks, first, newest(self.job.where), why, rank, waited_s))
        return results

    def _size(self) -> int:
        if callable(self.ranks):
            return self.ranks(self.attempts)
        return self.ranks if isinstance(self.ranks, int) else self.ranks[min(len(self.attempts), len(self.ranks) - 1)]

    def _in_a_row(self) -> int:
        """How many of the last attempts ended where they had begun, the last one at least."""
        count = 1
        for before in self.attempts[-2::-1]:
            if before.last < self.attempts[-1].last:
                break
            count += 1
        return count

    def _give_up(self) -> None:
        now, before = self.attempts[-1], self.attempts[-2] if len(self.attempts) > 1 else None
        if len(self.attempts) > self.restarts:
            failed = (
                f"the last attempt failed with {now.why} on rank {now.rank}, after the checkpoint of step {now.last}"
            )
            raise GaveUp(f"{self.restarts} restarts were not enough; {failed}", self.attempts)
        fault = now.why in ("killed", "Deadlock", "TimedOut")
        if before and not fault and (before.why, before.last) == (now.why, now.last):
            text = f"{now.why} came twice after the checkpoint of step {now.last}: a restart does not mend a bug"
            raise GaveUp(text, self.attempts)


def supervise(job: Job, **settings: Any) -> Supervised:
    """`Supervisor(job, **settings).run()`."""
    return Supervisor(job, **settings).run()
