"""What a launch raises. Each message says what happened, on which rank, at which line, and what to do."""


class LaunchError(RuntimeError):
    """Something went wrong with the ranks of a launch."""

    def __init__(self, report: str, rank: int = -1) -> None:
        super().__init__(report)
        self.report = report  # the message
        self.rank = rank  # at the root of it; -1 where no single rank is
        self.output: tuple[str, ...] = ()  # what each rank had printed until then

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the report alone, since the kernel's own frames say nothing about the ranks."""
        return [f"{type(self).__name__}: {self.report}"]


class RankFailed(LaunchError):
    """A rank raised, exited, or was killed. The report names the first that failed, with its own traceback."""

    def __init__(self, report: str, rank: int, cause: str, failures: dict[int, str]) -> None:
        super().__init__(report, rank)
        self.cause = cause  # the name of the exception's class (`ValueError`), or `exit` or `killed`
        self.failures = failures  # for each rank that failed of its own, one line


class Deadlock(LaunchError):
    """The ranks did not finish in time. The report says what each waits for, then what is wrong in one sentence."""


class Mismatch(LaunchError):
    """All ranks returned, but they had called different collectives, or the same on different sizes."""
