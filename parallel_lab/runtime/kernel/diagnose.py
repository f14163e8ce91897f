"""Who waits for whom, and why: from the calls of each rank to one sentence.

Three things can be wrong. The ranks of a group called different collectives, or the two ends of a message differ in
size or type: then the first such call is the cause, whatever happened later. A rank waits for what will never come: the
other rank returned, died, is busy elsewhere, or sent with another tag; or a fault dropped it. Or ranks wait for each
other in a circle.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from parallel_lab.runtime.rank.calls import DROPPED, ISSUED, STREAMS, UNCOUNTED, WAITING, Call, stream
from parallel_lab.runtime.tags import FIRST_OF_LAB

ANY_SIZE = ("all_to_all", "gather", "scatter", "all_gather", "barrier")  # sizes may differ between ranks

# What the calls of a collective must agree on, and how to tell one that does not.
AGREED = (
    (lambda call: call.kind, "{0.kind}"),
    (lambda call: call.peer, "{0.kind} with root {0.peer}"),
    (lambda call: call.kind in ANY_SIZE or call.bytes, "{0.kind} on {0.bytes:,} bytes"),
    (lambda call: call.kind in ANY_SIZE or call.dtype, "{0.kind} on {0.dtype}"),
)


@dataclass
class State:
    """A rank at the moment of the report."""

    calls: Sequence[Call]  # the last things that it asked of its groups, in order
    line: str = ""  # the learner's line that it is in, `file:number`; empty where unknown
    finished: bool = False  # whether its function has returned
    ended: str = ""  # how it failed, in words; empty while it lives
    silent: bool = False  # whether it could not answer (native code holds the interpreter)
    stopped: bool = False  # whether the system has stopped its process, as SIGSTOP does
    begun: bool = True  # whether it has come so far that it can be asked
    made: Mapping[tuple, int] = field(default_factory=dict)  # how many calls of each stream, also those before `calls`

    @property
    def busy(self) -> str:
        """What it does while it neither waits nor has ended."""
        if self.stopped:
            return "is stopped (by SIGSTOP, Ctrl-Z or a debugger): its process does nothing until SIGCONT"
        return "is busy" + (f" at {self.line}" if self.line else "") if self.begun else "has not begun"

    @property
    def waiting(self) -> Call | None:
        """The call in which the rank stands still."""
        return next((call for call in reversed(self.calls) if call.state == WAITING), None)

    def has_made(self, number: int, key: tuple) -> bool:
        """Whether the rank has made call `number` of the stream `key`; so it may be where that is not known."""
        if number == UNCOUNTED or (key not in self.made and len(self.made) >= STREAMS):
            return True
        made = (c for c in self.calls if c.state != DROPPED)
        return self.made.get(key, 0) > number or any(c.number >= number and c.stream == key for c in made)

    def takes_from_anyone(self, group: str, tag: int) -> bool:
        """Whether the rank has received such a message from whoever sent first: then no count tells which it was."""
        anyone = stream("recv", group, -1, tag)
        return anyone in self.made or any(call.stream == anyone for call in self.calls)


def mismatch(states: Mapping[int, State]) -> str:
    """The first collective or message on which those that take part disagree, in words; empty if there is none."""
    collectives: dict[tuple[int, str], dict[int, Call]] = {}
    for rank, state in states.items():
        for call in state.calls:
            if call.collective and call.state != DROPPED:
                collectives.setdefault((call.number, call.group), {})[rank] = call
    found = (_disagreement(collectives[key]) for key in sorted(collectives))
    if wrong := next(filter(None, found), ""):
        lost = dropped(states)
        return wrong + (f": {lost}, and its next calls came in its place" if lost else "")
    return next(filter(None, itertools.starmap(_unlike, _messages(states))), "")


def dropped(states: Mapping[int, State]) -> str:
    """The first collective that a fault dropped, in words; empty if there is none."""
    lost = ((rank, c) for rank, s in states.items() for c in s.calls if c.collective and c.state == DROPPED)
    return next((f"a fault dropped rank {rank}'s {call.kind} at {call.line}" for rank, call in lost), "")


def crossed(states: Mapping[int, State]) -> bool:
    """Whether ranks wait in the same collective of a group for each other under different names: none will go on."""
    kinds: dict[tuple[int, str], set[str]] = {}
    for state in states.values():
        if (call := state.waiting) and call.collective:
            kinds.setdefault((call.number, call.group), set()).add(call.kind)
    return any(len(each) > 1 for each in kinds.values())


def _messages(states: Mapping[int, State]) -> Iterator[tuple[int, Call, int, Call]]:
    """Both ends of each message: the sender and its call, the receiver and its call."""
    sends = {}
    for rank, state in states.items():
        for call in state.calls:
            if call.kind == "send" and call.state != DROPPED and call.number != UNCOUNTED:
                sends[rank, call.peer, call.group, call.tag, call.number] = call
    for rank, state in states.items():
        for call in state.calls:
            sent = sends.get((call.peer, rank, call.group, call.tag, call.number)) if call.kind == "recv" else None
            if sent and call.state != DROPPED and not state.takes_from_anyone(call.group, call.tag):
                yield call.peer, sent, rank, call


def _unlike(sender: int, sent: Call, receiver: int, taken: Call) -> str:
    """What the two ends of a message disagree on, in words; empty if they agree."""
    if (sent.bytes, sent.dtype) == (taken.bytes, taken.dtype):
        return ""
    tag = f" with tag {sent.tag}" if 0 < sent.tag < FIRST_OF_LAB else ""
    ends = f"rank {sender} sends {sent.what} to rank {receiver}{tag} at {sent.line}, and rank {receiver} receives them"
    ends += f" into {taken.what} at {taken.line}, "
    if sent.dtype != taken.dtype:
        return ends + "another type: receive into a tensor of the type that is sent"
    if sent.bytes > taken.bytes:
        return ends + "which is too small: both must have the same number of elements"
    return ends + "the rest of which is never written: both must have the same number of elements"


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
    for rank, missing in sorted(needs.items(), key=lambda each: calls[each[0]].kind != "recv"):
        if text := next(filter(None, (_astray(rank, calls[rank], peer, states[peer]) for peer in missing)), ""):
            return text
    for rank in states:
        if rank not in needs:
            waiters = {other: calls[other] for other, targets in needs.items() if rank in targets}
            if text := _missing(rank, waiters, states):
                return text
    if pairs := list(itertools.pairwise(_circle(needs))):
        return "a circle: " + ", ".join(f"rank {a} waits for rank {b} in {_name(calls[a])}" for a, b in pairs)
    return _never_waited(calls, states) or "no rank waits for another: the work is slow, or the timeout is short"


def _astray(rank: int, waited: Call, peer: int, state: State) -> str:
    """What `peer` has done in place of its part of the call in which `rank` waits: under another tag, or dropped."""
    wanted = _answer(rank, waited) if not waited.collective else waited.stream
    dropped = next((c for c in state.calls if c.state == DROPPED and c.stream == wanted), None)
    if dropped:
        lost = f"a fault dropped rank {peer}'s {_name(dropped)} at {dropped.line}"
        return f"{lost}; rank {rank} waits for it in {_name(waited)}, and nobody can still send it"
    if waited.collective:
        return ""
    tagless = wanted[:-1]
    for call in reversed(state.calls):
        if call.stream[:-1] == tagless and call.tag != waited.tag and call.state in (ISSUED, WAITING):
            did, does = ("sent", "waits for") if call.kind == "send" else ("waits for", "sent")
            there, here = f"rank {peer} {did} tag {call.tag}", f"rank {rank} {does} tag {waited.tag}"
            return f"{there}, {here}; a message needs one tag at both ends, {call.line} and {waited.line}"
    return ""


def hopeless(states: Mapping[int, State], moved: Collection[int] = ()) -> list[int]:
    """The ranks that can never go on: each waits for a call that another has not made and never will.

    That other has returned or died, or is hopeless itself. A rank that is busy, or is among those that `moved`, may
    still make the call, and a transfer under way may still end: then there is hope.
    """
    gone = {rank for rank, state in states.items() if state.finished or state.ended}
    needs = {r: _waits_for(r, s.waiting, states) for r, s in states.items() if s.waiting and r not in {*gone, *moved}}
    lost = {rank for rank, missing in needs.items() if missing}
    while saved := {rank for rank in lost if not set(needs[rank]) & (gone | lost)}:
        lost -= saved
    return sorted(lost)


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
    if state.silent and not state.stopped:
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
    if call.peer not in states:
        return []
    peer = states[call.peer]
    by_anyone = call.kind == "send" and peer.takes_from_anyone(call.group, call.tag)
    return [] if by_anyone or peer.has_made(call.number, _answer(rank, call)) else [call.peer]


def _answer(rank: int, call: Call) -> tuple:
    """The stream in which the peer answers a message of `rank`."""
    return stream("send" if call.kind == "recv" else "recv", call.group, rank, call.tag)


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
    if call.collective:
        return call.kind
    tag = f", tag {call.tag}" if 0 < call.tag < FIRST_OF_LAB else ""
    other = "any rank" if call.peer < 0 else f"rank {call.peer}"
    return f"{call.kind}({'from' if call.kind == 'recv' else 'to'} {other}{tag})"


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
    if call is None or state.stopped:
        return f"rank {rank} {state.busy}" + (
            " (native code: it does not answer)" if state.silent and not state.stopped else ""
        )
    at = f" at {state.line}" if state.line else ""
    members = f" with ranks {', '.join(map(str, call.ranks))}" if call.collective else ""
    return f"rank {rank} waits in {_name(call)}, number {call.number + 1}, {call.bytes:,} bytes{members}{at}"
