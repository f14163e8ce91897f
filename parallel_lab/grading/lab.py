"""The laboratory of a grader: runs learner code in ranks on fresh random inputs and hands back what happened.

It is there for the honest mistake and the tempting shortcut, not for a learner who sets out to fool his own grader. A
result without messages is seen in the bytes; messages for show are seen when one arrives changed and changes nothing; a
send that nobody waited for is in the trace. Files, imports and prints are nobody's business. No limit is by the clock,
so a busy machine changes no verdict: a rank is ended when it has computed too long, and the ranks when none of them has
computed or called anything for `STILL_S`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from parallel_lab.grading.rank_side import Case, graded
from parallel_lab.runtime import Deadlock, LaunchError, RankFailed, launch
from parallel_lab.trace import Trace

STILL_S = 8.0
LONGEST_S = 900.0  # nothing comes near; a limit for what neither computes, nor waits, nor ends
MEMORY_BYTES = 2 * 2**30


class Wrong(AssertionError):
    """An answer does not do what is asked."""

    def __init__(self, seen: str, advice: str = "") -> None:
        super().__init__(seen)
        self.seen = seen  # what was expected and what was seen, at which world size
        self.advice = advice  # what to look at next, one sentence; may be empty


class Stuck(Wrong):
    """The ranks waited for each other; running on would only wait again."""


class NotStarted(Exception):
    """The answer is still the stub."""


@dataclass
class Outcome:
    """One run of the learner's function on all ranks."""

    case: Case  # what was run
    inputs: list[tuple]  # the arguments of each rank, made again in the kernel
    results: list[Any]  # what each rank returned, in plain tensors, numbers, lists and dicts
    given: list[Any]  # each rank's arguments as they were after the call
    trace: Trace  # what was recorded
    seeds: tuple[int, ...] = ()  # what each rank's input was made from
    printed: Sequence[str] = ()  # what each rank printed
    expect: Callable[["Outcome"], list] = lambda outcome: outcome.results  # computes what each rank should return

    @cached_property
    def expected(self) -> list:
        """What each rank should return."""
        return self.expect(self)

    @property
    def ranks(self) -> int:
        """How many there were."""
        return self.case.ranks

    @property
    def at(self) -> str:
        """`at 3 ranks`, to begin a message with."""
        return self.case.at


class Lab:
    """Runs the cases of one exercise for one answer, each case once. Given `seeds` repeat the inputs of a check."""

    def __init__(self, exercise: Any, fn: Callable, seeds: Sequence[int] = ()) -> None:
        self.exercise, self.fn, self.seeds = exercise, fn, tuple(seeds)
        self.last: Outcome | None = None
        self._outcomes: dict[Case, Outcome | Wrong] = {}

    def run(self, case: Case) -> Outcome:
        """What happened in `case`.

        Raises:
            Wrong: a rank raised, used a technique, or left a message that nobody waited for.
            Stuck: the ranks waited for each other.
            NotStarted: the function raised NotImplementedError.
        """
        self.last = None
        if case not in self._outcomes:
            try:
                self._outcomes[case] = self._launched(case)
            except Wrong as wrong:
                self._outcomes[case] = wrong
        outcome = self._outcomes[case]
        if isinstance(outcome, Wrong):
            raise outcome
        self.last = outcome
        return outcome

    def _launched(self, case: Case) -> Outcome:
        task, whole = self.exercise, replace(case, defaults=tuple(self.exercise.settings.items()))
        try:
            run = launch(
                *(graded, self.fn, whole, task.given, task.drive, self.seeds),
                ranks=case.ranks, link=whole.get("link"), device=task.device,
                timeout=LONGEST_S, still_s=STILL_S, memory_bytes=MEMORY_BYTES, echo=False,
            )  # fmt: skip
        except Deadlock as error:
            left = " has returned" in error.report
            advice = "A rank returned while another waits for it: did it wait for its isend?" if left else ""
            raise Stuck(f"{case.at}: the ranks did not finish.\n{error.report}", advice) from None
        except LaunchError as error:
            if isinstance(error, RankFailed) and error.cause == "NotImplementedError":
                raise NotStarted from None
            rows = error.report.strip().splitlines()  # a learner reads the message, not the frames
            report = "\n".join(rows if len(rows) <= 12 else [*rows[:6], "...", *rows[-6:]])
            raise Wrong(f"{case.at}: {report}") from None
        except TypeError as error:  # the function, or something that it holds, cannot be sent to a rank
            raise Wrong(str(error)) from None
        _all_waited(run.trace, case.at)
        seeds, results, given, loaded = map(list, zip(*run.results, strict=True))
        for rank, techniques in enumerate(loaded):
            if techniques:
                raise Wrong(f"{case.at}: rank {rank} used {techniques[0]}, the answer itself", "Build it yourself.")
        inputs = [task.given(whole, r, torch.Generator().manual_seed(seed)) for r, seed in enumerate(seeds)]
        return Outcome(whole, inputs, results, given, run.trace, tuple(seeds), run.output, task.expected)


def _all_waited(trace: Trace, at: str) -> None:
    """Until a message has been waited for, its buffer belongs to the process group; `wait` is what ends its span."""
    for s in trace.spans:
        if s.kind in ("send", "recv") and s.end_s == s.start_s:
            way = "to" if s.kind == "send" else "from"
            seen = f"{at}: rank {s.rank} never waited for the i{s.kind} {way} rank {s.peer} ({s.line})"
            raise Wrong(seen, "isend and irecv return at once; the buffer is yours again when wait() has returned.")
