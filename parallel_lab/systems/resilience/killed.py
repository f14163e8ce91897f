"""A real job, really killed: the interval of saves swept under failures that a seed draws.

The job is `job.Job` under `restart.Supervisor`: processes, checkpoints and SIGKILLs are real. Time is virtual and
counts in steps, so that a busy machine changes nothing: a step takes 1, a save T_save, a restart T_restart. A clock in
rank 0 goes on by what really happens there. When it reaches the moment of the next failure, rank 0 kills itself: in a
step, or in the middle of a save, when files are written and nobody can see them yet. A restart does not fail here.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

from parallel_lab.systems.resilience.job import Job
from parallel_lab.systems.resilience.restart import Attempt, Backoff, Supervised, Supervisor
from parallel_lab.systems.resilience.timeline import Killed, dice


@dataclass
class Clock:
    """Rank 0's virtual time since its start, written down as it goes on, and the moment at which it dies."""

    file: str
    save: float  # what a save takes, in steps
    dies: float
    now: float = 0.0
    saving: float = 0.0  # of it, how much went into saves

    def __call__(self, what: str, step: int) -> None:
        """The hook of a `Job`: time goes on by a step or a save, or up to the moment of the failure."""
        if dist.get_rank() == 0:
            wanted = self.save if what == "saving" else 1.0
            passed = min(wanted, self.dies - self.now)
            self.now += passed
            self.saving += passed if what == "saving" else 0.0
            Path(self.file).write_text(f"{self.now} {self.saving}", encoding="utf-8")
            if passed < wanted:
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class _KilledRun(Supervisor):
    """A supervisor that gives each attempt a clock, and adds up what its time went into."""

    save: float = 1.0
    restart: float = 0.0
    draw: Callable[[], float] = float

    def __post_init__(self) -> None:
        self.parts = Killed()

    def _attempt(self, waited_s: float) -> list | None:
        file, plain = f"{self.job.where}.clock", self.job
        Path(file).write_text("0 0", encoding="utf-8")
        self.job = replace(plain, hook=Clock(file, self.save, self.draw()))
        results = super()._attempt(waited_s)
        self.job = plain
        self._account(self.attempts[-1], *map(float, Path(file).read_text(encoding="utf-8").split()))
        return results

    def _account(self, attempt: Attempt, passed: float, saving: float) -> None:
        kept = attempt.last - attempt.first if attempt.why else self.job.steps - attempt.first
        self.parts.useful += kept
        self.parts.saving += saving
        self.parts.lost += passed - saving - kept
        if attempt.why:
            self.parts.failures += 1
            self.parts.restarting += self.restart


def killed_run(
    job: Job, *, save: float, mtbf: float, restart: float = 0.0, seed: int = 0, ranks: int = 2
) -> tuple[Killed, Supervised]:
    """Runs the job to its end under failures; returns what its virtual time went into, and the real run.

    Args:
        job: what runs; `every` is the interval.
        save: what a save takes, in steps.
        mtbf: the mean time between failures, in steps.
        restart: what a restart takes, in steps.
        seed: of the failures.
        ranks: how many.
    """
    run = _KilledRun(
        job, ranks, restarts=10_000, backoff=Backoff(0.0), save=save, restart=restart, draw=dice(mtbf, seed=seed)
    )
    done = run.run()
    assert all(torch.equal(result.weights, done.results[0].weights) for result in done.results)
    return run.parts, done
