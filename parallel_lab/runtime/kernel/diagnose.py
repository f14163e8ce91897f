"""Who waits for whom, and why: from the calls of each rank to one sentence.

Three things can be wrong. The ranks of a group called different collectives (or the same on different sizes): then the
first such call is the cause, whatever happened later. A rank waits for one that will never come: it returned, it died,
or it is busy elsewhere. Or ranks wait for each other in a circle.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from parallel_lab.runtime.rank.calls import ISSUED, WAITING, Call, stream

ANY_SIZE = ("all_to_all", "gather", "scatter", "all_gather", "barrier")  # sizes may differ between ranks

# What the calls of a collective must agree on, and how to tell one that does not.
AGREED = (
    (lambda call: call.kind, "{0.kind}"),
    (lambda call: call.peer, "{0.kind} with root {0.peer}"),
    (lambda call: call.kind in ANY_SIZE or call.bytes, "{0.kind} on {0.bytes:,} bytes"),
)


@dataclass
class State:
    """A rank at the moment of the report."""

    calls: Sequence[Call]  # the last things that it asked of its groups, in order
    line: str = ""  # the learner's line that it is in, `file:number`; empty where unknown
    finished: bool = False  # whether its function has returned
    ended: str = ""  # how it failed, in words; empty while it lives
    silent: bool = False  # whether it could not answer (native code holds the interpreter)
    begun: bool = True  # whether it has come so far that it can be asked
    made: Mapping[tuple, int] = field(default_factory=dict)  # how many calls of each stream, also those before `calls`

    @property
    def busy(self) -> str:
        """What it does while it neither waits nor has ended."""
        return "is busy" + (f" at {self.line}" if self.line else "") if self.begun else "has not begun"

    @property
    def waiting(self) -> Call | None:
        """The call in which the rank stands still."""
        return next((call for call in reversed(self.calls) if call.state == WAITING), None)

    def has_made(self, number: int, key: tuple) -> bool:
        """Whether the rank has made call `number` of the stream `key`."""
        return self.made.get(key, 0) > number or any(c.number >= number and c.stream == key for c in self.calls)


def mismatch(states: Mapping[int, State]) -> str:
    """The first collective on which the members of a group disagree, in words; empty if there is none."""
    collectives: dict[tuple[int, str], dict[int, Call]] = {}
    for rank, state in states.items():
        for call in state.calls:
            if call.collective:
                collectives.setdefault((call.number, call.group), {})[rank] = call
    return next(filter(None, (_disagreement(collectives[key]) for key in sorted(collectives))), "")


def _disagreement(calls: Mapping[int, Call]) -> str:
    """What ranks that meet in a collective disagree on, in words; empty if they agree."""
    for key, words in AGREED:
        camps: dict[object, list[int]] = {}
        for rank, call in calls.items():
            camps.setdefault(key(call), []).append(rank)
        usual = max(camps.values(), key=lambda ranks: (len(ranks), -ranks[0]))
        for odd in camps.values():
            if odd is not usual:
                theirs, ours = calls[odd[0]], calls[usual[0]]
                others = "the others" if len(ours.ranks) > 2 else f"rank {usual[0]}"
                text = f"{_ranks(odd)} called {words.format(theirs)} where {others} called {words.format(ours)}"
                return f"{text} (collective number {ours.number + 1}{f' in group {ours.group}' if ours.group else ''})"
    return ""


def verdict(states: Mapping[int, State]) -> str:
    """What is wrong, in one sentence."""
    if wrong := mismatch(states):
        return wrong
    calls = {rank: state.waiting for rank, state in states.items() if state.waiting}
    needs = {rank: _waits_for(rank, call, states) for rank, call in calls.items()}
    for rank in states:
        if rank not in needs:
            waiters = {other: calls[other] for other, targets in needs.items() if rank in targets}
            if text := _missing(rank, waiters, states):
                return text
    if pairs := list(itertools.pairwise(_circle(needs))):
        return "a circle: " + ", ".join(f"rank {a} waits for rank {b} in {_name(calls[a])}" for a, b in pairs)
    return _never_waited(calls, states) or "no rank waits for another: the work is slow, or the timeout is short"


def hopeless(states: Mapping[int, State]) -> bool:
    """Whether no rank can go on: each that has not returned waits for a call that its peers have not made.

    A rank that is busy may still make the call, and a transfer under way may still end: then there is hope.
    """
    late = {rank: state.waiting for rank, state in states.items() if not (state.finished or state.ended)}
    return bool(late) and all(call is not None and _waits_for(rank, call, states) for rank, call in late.items())


def _missing(rank: int, waiters: Mapping[int, Call], states: Mapping[int, State]) -> str:
    """What to say of a rank that is not waiting for anybody, while the `waiters` wait for it in their calls."""
    state = states[rank]
    if waiters:
        waited = next(iter(waiters.values()))
        if state.finished:
            return _returned(rank, list(waiters), waited, states)
        return f"rank {rank} {state.ended or state.busy}; {_wait(waiters)} for it in {_name(waited)}"
    if state.finished or state.ended:
        return ""
    if not state.begun:
        return f"rank {rank} has not begun: the machine is busy, or the timeout is short"
    if state.silent:
        at = f" at {state.line}" if state.line else ""
        return f"rank {rank} is in native code{at} that does not come back and does not let Python run"
    return f"rank {rank} {state.busy}, and waits for nobody"


def _returned(rank: int, waiters: list[int], waited: Call, states: Mapping[int, State]) -> str:
    """What to say when `rank` has returned while others wait: name the few, whether they returned or they wait."""
    gone = [r for r in waited.ranks if r in states and states[r].finished] if waited.collective else [rank]
    if len(gone) > len(waiters):
        return f"only {_ranks(waiters)} called {waited.kind}; {_ranks(gone)} returned without it"
    it, they = ("it", "it") if len(gone) == 1 else ("them", "they")
    never = "joined" if waited.collective else "answered"
    return f"{_ranks(gone)} returned; {_wait(waiters)} for {it} in {_name(waited)}, which {they} never {never}"


def _waits_for(rank: int, call: Call, states: Mapping[int, State]) -> list[int]:
    """The ranks that have not done their part of the call in which `rank` waits."""
    if call.collective:
        return [r for r in call.ranks if r in states and not states[r].has_made(call.number, call.stream)]
    made = call.peer not in states or states[call.peer].has_made(call.number, _answer(rank, call))
    return [] if made else [call.peer]


def _answer(rank: int, call: Call) -> tuple:
    """The stream in which the peer answers a message of `rank`."""
    return stream("send" if call.kind == "recv" else "recv", call.group, rank)


def _never_waited(calls: Mapping[int, Call], states: Mapping[int, State]) -> str:
    """A receive that stands still although its message was issued: nobody waited for the isend, so it may be lost."""
    for rank, call in calls.items():
        if call.kind == "recv" and call.peer in states:
            for sent in states[call.peer].calls:
                if (sent.number, sent.stream, sent.state) == (call.number, _answer(rank, call), ISSUED):
                    lost = f"rank {call.peer} issued it at {sent.line} and has not waited for it"
                    waits = f"rank {rank} waits for a message of rank {call.peer}"
                    return f"{waits}; {lost}: keep what isend returns, and wait()"
    return ""


def _circle(needs: Mapping[int, list[int]]) -> list[int]:
    for start in needs:
        path = [start]
        while (following := needs.get(path[-1])) and following[0] not in path:
            path.append(following[0])
        if following and following[0] in path:
            return [*path[path.index(following[0]) :], following[0]]
    return []


def _name(call: Call) -> str:
    other = "" if call.collective else f"({'from' if call.kind == 'recv' else 'to'} rank {call.peer})"
    return call.kind + other


def _wait(ranks: Collection[int]) -> str:
    return _ranks(ranks) + (" waits" if len(ranks) == 1 else " wait")


def _ranks(ranks: Collection[int]) -> str:
    names = [str(rank) for rank in ranks]
    return "rank " + names[0] if len(names) == 1 else "ranks " + ", ".join(names[:-1]) + " and " + names[-1]


def describe(rank: int, state: State) -> str:
    """One line on where a rank is."""
    if state.ended:
        return f"rank {rank} {state.ended}"
    if state.finished:
        return f"rank {rank} has returned"
    call = state.waiting
    if call is None:
        return f"rank {rank} {state.busy}" + (" (native code: it does not answer)" if state.silent else "")
    at = f" at {state.line}" if state.line else ""
    members = f" with ranks {', '.join(map(str, call.ranks))}" if call.collective else ""
    return f"rank {rank} waits in {_name(call)}, number {call.number + 1}, {call.bytes:,} bytes{members}{at}"
