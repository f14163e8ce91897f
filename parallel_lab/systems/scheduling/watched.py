"""A training job on real ranks that is watched while it runs, until an alarm fires.

Each rank works, exchanges and exports its metrics; a monitor beside the job asks it: a real Prometheus where there is
one, and `Evaluator` with a loop of its own otherwise. The job ends when the alarm that is waited for fires; then `over`
is set, for which the work of a rank that is to stand still waits.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from parallel_lab.runtime import launch
from parallel_lab.systems.processes import temporary
from parallel_lab.systems.scheduling.alarms import Alert, Evaluator, Rule
from parallel_lab.systems.scheduling.exporter import Exporter, scrape
from parallel_lab.systems.scheduling.prometheus import missing, prometheus

LOOK_S = 0.05
PATIENCE_S = 60.0


class Over:
    """Whether the alarm has fired, as a file that the monitor writes and all ranks see."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "over"

    def is_set(self) -> bool:
        """Whether it has."""
        return self.file.exists()

    def wait(self) -> None:
        """Stands still until it has."""
        while not self.is_set():
            time.sleep(LOOK_S)


Work = Callable[[int, int, Over, Exporter], None]  # of (rank, step, over, exporter): a rank's own work of a step


@dataclass(frozen=True)
class Watched:
    """What a monitor saw.

    Attributes:
        by: who watched.
        fired: the alerts as they stood when the one that was waited for fired, or when patience ended.
        steps: how many steps the job had done.
    """

    by: str
    fired: tuple[Alert, ...]
    steps: int

    def __str__(self) -> str:
        return "\n".join([f"watched by {self.by}", *(f"  {alert}" for alert in self.fired)])


def watched(
    rules: Sequence[Rule],
    work: Work,
    until: tuple[str, int],
    *,
    ranks: int = 4,
    every_s: float = 0.2,
    real: bool | None = None,
    patience_s: float = PATIENCE_S,
) -> Watched:
    """Runs a job until an alarm fires. Call it from the main thread.

    Args:
        rules: the alarms.
        work: a rank's own work of a step.
        until: the name and the rank of the alarm that is waited for.
        ranks: how many.
        every_s: how often the monitor asks.
        real: whether Prometheus watches; by default where there is one.
        patience_s: after this time the job ends without the alarm.
    """
    wanted = Alert(until[0], str(until[1]), "firing")
    with temporary() as folder, _monitor(folder, rules, every_s, real) as (by, alerts):
        watcher = _Watcher(alerts, wanted, Over(folder), every_s, patience_s)
        with watcher:
            job, limit_s = partial(_job, folder, work), patience_s + PATIENCE_S
            run = launch(job, ranks=ranks, timeout=limit_s, device="cpu", record=False)
    return Watched(by, tuple(watcher.seen), run[0])


class _Watcher(threading.Thread):
    """Looks at the alerts beside the job, until the wanted one is there, the job has ended, or patience has."""

    def __init__(self, alerts: Callable[[], list[Alert]], wanted: Alert, over: Over, every_s: float, patience_s: float):
        super().__init__()
        self.alerts, self.wanted, self.over, self.every_s = alerts, wanted, over, every_s
        self.ends_s, self.ended, self.seen = time.monotonic() + patience_s, threading.Event(), list[Alert]()

    def run(self) -> None:
        try:
            while self.wanted not in self.seen and time.monotonic() < self.ends_s and not self.ended.wait(self.every_s):
                with contextlib.suppress(OSError):  # a monitor that does not answer in time is asked again
                    self.seen = self.alerts()
        finally:  # also where a monitor answers what nobody can read: the job would go on for as long as it may
            self.over.file.touch()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *raised: object) -> None:
        self.ended.set()
        self.join()


@contextmanager
def _monitor(
    folder: Path, rules: Sequence[Rule], every_s: float, real: bool | None
) -> Iterator[tuple[str, Callable[[], list[Alert]]]]:
    if not missing() if real is None else real:
        with prometheus(folder, folder, rules, every_s) as server:
            yield "Prometheus", server.alerts
    else:
        own = Evaluator(rules)
        yield "the course's own evaluator", lambda: own.look(scrape(folder), time.time())


def _job(folder: Path, work: Work) -> int:
    """A rank: steps until it is over; one number says so to all, in the exchange that ends a step."""
    rank, over, exporter, step = dist.get_rank(), Over(folder), Exporter(), 0
    exporter.queue.set(1)
    with exporter.serving(folder, rank):
        ends = torch.zeros(1)
        while not ends:
            with exporter.step():
                work(rank, step, over, exporter)
            ends += over.is_set()
            dist.all_reduce(ends, op=dist.ReduceOp.MAX)
            exporter.exchanged(tokens=1024)
            step += 1
    return step
