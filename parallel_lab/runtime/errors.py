"""What a launch raises. Each message says what happened, on which rank, at which line, and what to do."""

from collections.abc import Mapping
from types import MappingProxyType

from parallel_lab.trace import Trace


class Told:
    """What every end of a launch before its time tells."""

    report: str  # the message
    output: tuple[str, ...] = ()  # what each rank had printed until then
    progress: Mapping[int, tuple[str, int, int | None]] = MappingProxyType({})  # by rank: label, done, total
    trace: Trace | None = None  # what the ranks did until then; nothing of a rank that was killed

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the report alone, since the kernel's own frames say nothing about the ranks."""
        look = "\nTo see what the ranks did until then: draw()" if self.trace and self.trace.spans else ""
        return [f"{type(self).__name__}: {self.report}{look}"]


class LaunchError(Told, RuntimeError):
    """Something went wrong with the ranks of a launch."""

    def __init__(self, report: str, rank: int = -1) -> None:
        super().__init__(report)
        self.report = report
        self.rank = rank  # at the root of it; -1 where no single rank is


class RankFailed(LaunchError):
    """A rank raised, exited, or was killed. The report names the first that failed, with its own traceback."""

    def __init__(self, report: str, rank: int, cause: str, failures: dict[int, str]) -> None:
        super().__init__(report, rank)
        self.cause = cause  # the name of the exception's class (`ValueError`), or `exit` or `killed`
        self.failures = failures  # for each rank that failed of its own, one line


class Deadlock(LaunchError):
    """The ranks could not finish. The report says what each waits for, then what is wrong in one sentence."""


class TimedOut(LaunchError):
    """Time was up while the ranks still went on. The report says what they did last, and what is under way."""


class Mismatch(LaunchError):
    """All ranks returned, but they had called different collectives, or the same on different sizes."""


class Stopped(Told, KeyboardInterrupt):
    """The learner pressed Stop. The report says after how long, and where each rank stood."""

    def __init__(self, report: str) -> None:
        super().__init__(report)
        self.report = report
