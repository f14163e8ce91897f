"""Why ranks waited for each other, and the way out: told from the report of a deadlock and from what was recorded."""

import re

from parallel_lab.trace import Trace

NEVER_JOINED = "Every rank of the group must call a collective: does this call stand behind an `if`, or in a loop?"
GROUPS = (
    "new_group is a collective call as well: every rank makes every group, in the same order, also those of others."
)
NEVER_WAITED = "isend and irecv return at once: keep what they return, and wait() for it."
ALL_SEND = "Every rank of the circle waits in its send until the next one receives: who is left to receive?"
ALL_RECEIVE = (
    "Every rank of the circle waits for a message that the next one sends after its own receive: who is left to send?"
)
NEVER_SENT = "For each receive one rank must send: count the messages of each rank, round by round."
WRONG_SOURCE = "Receive from the rank that sends to you; in a ring that is the neighbor to which you do not send."


def why_stuck(report: str, trace: Trace | None = None) -> str:
    """The advice for what the ranks wait for; none where the report names the cause itself."""
    if "new_group(" in report:
        return GROUPS
    verdict = report.rpartition("What is wrong: ")[2]
    if crossed := wrong_source(trace):
        return crossed
    if verdict.startswith("a circle: "):
        return _out_of_circle(verdict)
    if " returned" not in verdict:
        return ""
    if not re.search(r" in (send|recv)\b", verdict):
        return NEVER_JOINED
    return NEVER_WAITED if re.search(r"\bi(send|recv)\(", report) else NEVER_SENT


def wrong_source(trace: Trace | None) -> str:
    """Of a rank that waits for messages of ranks that send it none, while others send to it; empty if there is none."""
    spans = [s for s in trace.spans if s.kind in ("send", "recv") and s.peer >= 0] if trace else []
    for rank in sorted({s.rank for s in spans}):
        sources = {s.peer for s in spans if s.kind == "recv" and s.rank == rank}
        senders = {s.rank for s in spans if s.kind == "send" and s.peer == rank}
        if sources and senders and not sources & senders:
            wanted, comes = min(sources), min(senders)
            goes = sorted({s.peer for s in spans if s.kind == "send" and s.rank == wanted})
            to = f"sends to rank {goes[0]}" if goes else "sends nothing"
            named = f"Rank {rank} receives from rank {wanted}, which {to}; what is sent to rank {rank}"
            return f"{named} comes from rank {comes}. {WRONG_SOURCE}"
    return ""


def _out_of_circle(verdict: str) -> str:
    """The way out of a circle of messages that all wait in the same kind of call; none of another circle."""
    kinds = set(re.findall(r" waits for rank \d+ in (\w+)", verdict))
    return {"send": ALL_SEND, "recv": ALL_RECEIVE}[kinds.pop()] if kinds in ({"send"}, {"recv"}) else ""
