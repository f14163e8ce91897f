"""The laboratory of a grader: runs learner code in ranks on fresh random inputs and hands back what happened.

What the grading defends against, and what not. Learner code shares a process with the recorder, so a determined
learner can forge whatever is recorded there; the grader's aim is that every shortcut that a tired person takes fails,
with a message that says why.

Defended: input known beforehand (each rank draws its own from the operating system's randomness, nobody else has it),
the expected answer found in a caller's frame (only the kernel computes it, afterwards), objects that equal everything,
tensor subclasses and NaN (`rank_side.plain`, `values.same`), calling a reference (code is searched, and loaded modules
are listed), a recorder that was stopped or cleared and groups that go round the lab backend (each message must be
recorded on both sides, and the least that must travel is known), files, sockets, child processes and the rendezvous
store (`course.side_doors` refuses them), state in lists, strings or buffers in place of tensors (`course.hidden` counts
it), messages that are only for show (one arrives changed, and the result must change with it), sends that nobody waits
for (the trace shows it, and the buffer is overwritten on return), hangs and memory (limits of `launch`).

Not defended: code that rewrites the grader's own functions in its rank, spans forged to the byte together with data
that travels outside Python, through C++ shared memory or past the guard of `side_doors`, and state that lies there, or
in the frame of a thread of the learner's.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from parallel_lab.course.rank_side import Make, Returned, graded, inputs_of
from parallel_lab.runtime import Deadlock, LaunchError, RankFailed, launch
from parallel_lab.trace import Trace

WORLDS = (1, 2, 3, 4)


class Wrong(AssertionError):
    """An answer does not do what is asked.

    Attributes:
        seen: what was expected and what was seen, at which world size.
        advice: what to look at next, one sentence; may be empty.
    """

    def __init__(self, seen: str, advice: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.advice = advice


class Stuck(Wrong):
    """The ranks waited for each other; running on would only wait again."""


class NotStarted(Exception):
    """The answer is still the stub."""


class Outcome(NamedTuple):
    """One run of the learner's function on all ranks.

    Attributes:
        ranks: how many.
        inputs: the arguments of each rank, made again in the kernel.
        results: what each rank returned, in plain tensors, numbers and lists.
        given: each rank's arguments as they were after the call.
        trace: what was recorded.
        seeds: what each rank's input was made from.
    """

    ranks: int
    inputs: list[tuple]
    results: list[Any]
    given: list[Any]
    trace: Trace
    seeds: tuple[int, ...]

    @property
    def at(self) -> str:
        """`at 3 ranks`, to begin a message with."""
        return f"at {self.ranks} rank" + ("s" if self.ranks > 1 else "")


class Lab:
    """Runs learner code for one check.

    Args:
        seeds: of the ranks' inputs, to repeat an earlier check; none for fresh ones.
        timeout: seconds after which ranks that wait for each other are ended.
        memory_bytes: the most that a rank may hold; None for no limit.
    """

    def __init__(self, seeds: Sequence[int] = (), timeout: float = 10.0, memory_bytes: int | None = None) -> None:
        self.seeds = tuple(seeds)
        self.timeout = timeout
        self.memory_bytes = memory_bytes
        self.last_seeds: tuple[int, ...] = ()
        self._runs: dict[tuple, Outcome] = {}

    def run(self, fn: Callable, ranks: int, make: Make, *, key: Any = None, garble: bool = False, **options) -> Outcome:
        """`fn(*make(rank, ranks, generator))` on `ranks` ranks.

        Args:
            fn: the learner's function, or a driver that calls it.
            ranks: how many.
            make: gives each rank its arguments.
            key: tests that look at the same thing from two sides share a run by giving the same key.
            garble: whether one message arrives changed (see `rank_side.graded` and `mechanism.expect_heard`).
            options: go to `launch`.

        Raises:
            Wrong: a rank raised, its collectives do not fit together, a message was never waited for, or a reference
                was used.
            Stuck: the ranks waited for each other.
            NotStarted: the function raised NotImplementedError.
        """
        self.last_seeds = ()
        outcome = self._runs.get((ranks, key)) if key is not None else None
        if outcome is None:
            outcome = self._outcome(fn, ranks, make, garble, options)
        if key is not None:
            self._runs[ranks, key] = outcome
        self.last_seeds = outcome.seeds
        return outcome

    def _outcome(self, fn: Callable, ranks: int, make: Make, garble: bool, options: dict) -> Outcome:
        at = f"at {ranks} rank" + ("s" if ranks > 1 else "")
        options = {"timeout": self.timeout, "memory_bytes": self.memory_bytes, "echo": False} | options
        try:
            run = launch(graded, fn, make, self.seeds, garble, ranks=ranks, **options)
        except Deadlock as error:
            returned = " has returned" in error.report
            advice = "A rank returned while another waits for it: did it wait for its isend?" if returned else ""
            raise Stuck(f"{at}: the ranks did not finish.\n{error.report}", advice) from None
        except RankFailed as error:
            if error.cause == "NotImplementedError":
                raise NotStarted from None
            raise Wrong(f"{at}: {shorten(error.report)}") from None
        except LaunchError as error:
            raise Wrong(f"{at}: {shorten(error.report)}") from None
        except TypeError as error:  # the function, or something that it holds, cannot be sent to a rank
            raise Wrong(str(error)) from None
        if not options.get("faults"):  # a dropped message is over before it is waited for
            _all_waited(run.trace, at)
        return _checked(run, ranks, make, at)


def _all_waited(trace: Trace, at: str) -> None:
    """Until a message has been waited for, its buffer belongs to the process group; `wait` is what ends its span."""
    for s in trace.spans:
        if s.kind in ("send", "recv") and s.end_s == s.start_s:
            way = "to" if s.kind == "send" else "from"
            raise Wrong(
                f"{at}: rank {s.rank} never waited for the i{s.kind} {way} rank {s.peer} ({s.line})",
                "isend and irecv return at once; until wait() has returned, the buffer may still be read or unwritten.",
            )


def _checked(run: Any, ranks: int, make: Make, at: str) -> Outcome:
    returned: list[Returned] = [run.results[rank] for rank in range(ranks)]
    for rank, one in enumerate(returned):
        if type(one) is not Returned:
            raise Wrong(f"{at}: rank {rank} ended without its result")
        if one.loaded:
            raise Wrong(f"{at}: rank {rank} used {one.loaded[0]}, the answer itself", "The exercise is to build it.")
    seeds = tuple(one.seed for one in returned)
    inputs = [inputs_of(make, rank, ranks, seed) for rank, seed in enumerate(seeds)]
    return Outcome(ranks, inputs, [one.result for one in returned], [one.given for one in returned], run.trace, seeds)


def shorten(report: str, lines: int = 12) -> str:
    """The first and the last of the lines of a report: a learner reads the message, not the frames."""
    rows = report.strip().splitlines()
    if len(rows) <= lines:
        return "\n".join(rows)
    return "\n".join([*rows[: lines // 2], "...", *rows[-(lines // 2) :]])
