"""The laboratory of a grader: runs learner code in ranks on fresh random inputs and hands back what happened.

It is there for the honest mistake and the tempting shortcut, not for a learner who sets out to fool his own grader. A
result without messages is seen in the bytes; messages for show are seen when one arrives changed and changes nothing; a
send that nobody waited for is in the trace. Files, imports and prints are nobody's business. No limit is by the clock,
so a busy machine changes no verdict: a rank is ended when it has computed too long, and the ranks when none of them has
computed or called anything for `STILL_S`.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from parallel_lab.grading.rank_side import Case
from parallel_lab.grading.stuck import why_stuck
from parallel_lab.grading.trial import Outcome, Trial
from parallel_lab.runtime import Deadlock, LaunchError, RankFailed, Run
from parallel_lab.runtime.kernel.report import places
from parallel_lab.trace import Trace

STILL_S = 8.0
LONGEST_S = 900.0  # nothing comes near; a limit for what neither computes, nor waits, nor ends
MEMORY_BYTES = 2 * 2**30
_DRIVERS = "rank_side|contexts|cutting|drivers|experts|halves|layouts|pruned|quantized|runs|scales|sharding|small_gpt"
_DRIVERS += "|backfilling|crash_points|crashes|metrics|orders|poisoned|resembling|sealed|stages|streamed|sums|workers"
_DRIVERS += "|clinical|instruments|ranked"
_OURS = re.compile(rf"^ +(?:{_DRIVERS})\.py, line \d+, in .*\n.*\n(?: +and the same .*\n)?", re.MULTILINE)
BUFFER = "isend and irecv return at once; the buffer is yours again when wait() has returned."
HANDLE = "It returns at once: keep what it returns, and wait() for it. Until then the result may not be there."
OVERLAID = {
    "recv": "receives into a tensor that it is still sending",
    "send": "sends a tensor that it is still receiving into",
}
OWN_TENSOR = (
    "What comes in overwrites what goes out: is it the tensor, or the row, that you mean? Receive into another."
)
RAISED = {"BdbQuit": "A rank has no keyboard: print what you want to see, or run it by yourself."}


class Wrong(AssertionError):
    """An answer does not do what is asked."""

    def __init__(
        self,
        seen: str,
        advice: str = "",
        reason: str = "",
        printed: Sequence[str] = (),
        trace: Trace | None = None,
    ) -> None:
        super().__init__(seen)
        self.seen = seen  # what was expected and what was seen, at which world size
        self.advice = advice  # what to look at next, one sentence; may be empty
        self.reason = reason or seen  # the same for the same mistake, at whatever rank and size it shows
        self.printed, self.trace = printed, trace  # what each rank had printed and done, where they came to no end


class Stuck(Wrong):
    """The ranks waited for each other; running on would only wait again."""


class NotStarted(Exception):
    """The answer is still the stub."""


class Lab:
    """Runs the cases of one exercise for one answer, each case once. A given `seed` repeats the inputs of a check."""

    def __init__(self, exercise: Any, fn: Callable, seed: int | None = None) -> None:
        self.exercise, self.fn = exercise, fn
        self.seed = int.from_bytes(os.urandom(2), "big") if seed is None else seed
        self.trial: Trial | None = None  # the last one that was asked for
        self.last: Outcome | None = None  # and what came of it
        self.printed: Sequence[str] = ()  # and what each rank printed
        self._outcomes: dict[Case, tuple[Outcome | Wrong, Sequence[str]]] = {}

    def run(self, case: Case) -> Outcome:
        """What happened in `case`.

        Raises:
            Wrong: a rank raised, used a technique, or left a message that nobody waited for.
            Stuck: the ranks waited for each other.
            NotStarted: the function raised NotImplementedError.
        """
        defaults = tuple(self.exercise.settings.items())
        self.trial, self.last = Trial(self.exercise, replace(case, defaults=defaults), self.seed), None
        if case not in self._outcomes:
            try:
                self._outcomes[case] = self._launched(self.trial)
            except Wrong as wrong:
                self._outcomes[case] = wrong, wrong.printed
        outcome, self.printed = self._outcomes[case]
        if isinstance(outcome, Wrong):
            raise outcome
        self.last = outcome
        return outcome

    def _launched(self, trial: Trial) -> tuple[Outcome, Sequence[str]]:
        at = trial.case.at
        try:
            run = trial.launch(self.fn, timeout=LONGEST_S, still_s=STILL_S, memory_bytes=MEMORY_BYTES, echo=False)
        except Deadlock as error:
            seen = f"{at}: the ranks did not finish.\n{error.report}"
            raise Stuck(seen, why_stuck(error.report, error.trace), printed=error.output, trace=error.trace) from None
        except LaunchError as error:
            if isinstance(error, RankFailed) and error.cause == "NotImplementedError":
                raise NotStarted from None
            raise _failed(trial, error) from None
        except TypeError as error:  # the function, or something that it holds, cannot be sent to a rank
            raise Wrong(str(error)) from None
        for rank, (_, _, techniques, *_) in enumerate(run.results):
            if techniques:
                reason = f"the answer used {techniques[0]}"
                raise Wrong(f"{at}: rank {rank} used {techniques[0]}, the answer itself", "Build it yourself.", reason)
        for rank, seen, advice in _misused(run):
            raise Wrong(f"{at}: rank {rank} {seen}", advice, reason=seen, printed=run.output, trace=run.trace)
        return trial.outcome(run), run.output


def _failed(trial: Trial, error: LaunchError) -> Wrong:
    rows = _OURS.sub("", error.report).strip().splitlines()  # a learner reads the message, not the frames
    text = next((row for row in rows if row.startswith(f"{_cause(error)}:")), "")
    same = [row for row in rows if text and row.startswith("rank ") and text in row]
    rows = [row for row in rows if row not in same] + (
        [f"{len(same)} more rank{'s' * (len(same) > 1)} likewise"] if same else []
    )
    report = "\n".join(rows if len(rows) <= 12 else [*rows[:6], "...", *rows[-6:]])
    cause = _cause(error)
    frames = [row for row in rows if re.match(r" +.*, line \d+, in ", row)]
    reason = "\n".join([cause, *frames]) if frames else report
    advice = RAISED.get(cause) or trial.exercise.raised(trial.case, cause)
    return Wrong(f"{trial.case.at}: {report}", advice, reason, error.output, error.trace)


def _cause(error: LaunchError) -> str:
    return error.cause if isinstance(error, RankFailed) else type(error).__name__


def _misused(run: Run) -> Iterator[tuple[int, str, str]]:
    """Who misused a call that returns at once, how, and what to do; such an answer is right only by luck."""
    for s in run.trace.spans:  # a message's span ends when it is waited for
        if s.kind in ("send", "recv") and not s.ended:
            way = "to" if s.kind == "send" else "from"
            yield s.rank, f"never waited for the i{s.kind} {way} rank {s.peer} ({places(s.line)})", BUFFER
    for rank, (*_, left) in enumerate(run.results):
        for kind, line in left:
            yield rank, f"never waited for the {kind} with async_op=True ({places(line)})", HANDLE
    for rank, (*_, shared, _) in enumerate(run.results):
        for kind, line in shared:
            yield rank, f"{OVERLAID[kind]} ({places(line)})", OWN_TENSOR
