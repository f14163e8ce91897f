"""A limit in seconds of the processor for a rank, so that an endless loop ends and a busy machine changes nothing."""

import signal
from typing import Any, NoReturn


class Endless(RuntimeError):
    """This rank has computed too long."""

    __module__ = "builtins"  # a message names it without a path


def limit_processor_time(seconds: float) -> None:
    """Ends this rank by `Endless` when it has computed for so long. What it waits does not count."""

    def over(*_: Any) -> NoReturn:
        raise Endless(f"this rank has computed for {seconds:g} s of processor time: does a loop never end?")

    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
