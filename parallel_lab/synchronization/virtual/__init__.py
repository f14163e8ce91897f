"""Virtual time, as chapters use it: `schedule` what happens when, `replay` it with real gradients, draw its `trace`."""

from parallel_lab.parameter_server import Update
from parallel_lab.plan import RECV, SEND
from parallel_lab.synchronization.local_sgd import LocalSteps
from parallel_lab.synchronization.virtual.clock import Costs, Schedule, Strategy, schedule, slow_worker
from parallel_lab.synchronization.virtual.retrain import Curve, replay
from parallel_lab.trace import Span, Trace


def trace(timetable: Schedule, message_bytes: int = 0) -> Trace:
    """A schedule as a simulated trace, a row for each worker, for `draw` and `Trace.bubble`.

    Computing is `gradient`, or `dropped` where it came to nothing; `push` and `pull` are its messages, and `meet` the
    meeting of `LocalSteps`. What is left blank is waiting. Each push or meeting sends `message_bytes`.
    """
    costs, local = timetable.costs, isinstance(timetable.strategy, LocalSteps)
    last = {(update.worker, update.version): update.step for update in timetable}
    spans: list[Span] = []
    for update in timetable:
        if not local:
            spans.append(_span(update, "pull", update.started_s - costs.pull_s, update.started_s, RECV))
            came_s = update.computed_s + costs.push_s
            spans.append(_span(update, "push", update.computed_s, came_s, SEND, message_bytes))
        elif last[update.worker, update.version] == update.step:
            began_s = update.finished_s - costs.push_s - costs.pull_s
            spans.append(_span(update, "meet", began_s, update.finished_s, SEND, message_bytes))
        kind = "dropped" if update.dropped else "gradient"
        spans.append(_span(update, kind, update.started_s, update.computed_s))
    return Trace(timetable.workers, tuple(sorted(spans, key=lambda s: (s.rank, s.start_s))), simulated=True)


def _span(update: Update, kind: str, start_s: float, end_s: float, lane: str = "compute", size_bytes: int = 0) -> Span:
    span = Span(update.worker, kind, start_s, end_s, update.read_version, update.step, lane=lane)
    return span._replace(bytes=size_bytes, sent_bytes=size_bytes, sent_messages=int(lane == SEND))


__all__ = [
    "Costs",
    "Curve",
    "Schedule",
    "Strategy",
    "Update",
    "replay",
    "schedule",
    "slow_worker",
    "trace",
]
