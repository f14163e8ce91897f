"""A job hangs: read the flight-recorder dumps of its ranks, and say which rank to look at, and what to do next.

PyTorch keeps the last collectives of each rank in a ring buffer, the flight recorder. An entry has the group, the
number of the collective in its group, its name, sizes, line, and whether it is over. NCCL's process group writes the
buffer to a file when a collective has taken too long. In `launch` each rank writes it when the kernel asks where the
ranks stand, if `TORCH_FR_DUMP_TEMP_FILE` is set, which is what the file's path begins with.

The rule. In a group all ranks must make the same collectives in the same order. So the i-th entry of a group is
compared over its members. A member that has no i-th entry is *behind*, and those that have it wait for it. The wait is
followed from rank to rank: whoever is waited for and waits for nobody is the root. Where everybody waits, there is a
circle.

What a dump does not have: with gloo no messages, only collectives, and no start. A rank without a dump has died, or
does not let its threads run.
"""

import ast
import os
import pickle
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

UNEVEN = ("all_to_all", "gather", "scatter", "all_gather", "barrier")  # sizes may differ between ranks
SHOWN = 8  # so many ranks are named, of more the first ones and the number
NEXT = {
    "no dump": "look at the end of its own log, at its exit code and at the kernel's log (`dmesg`: out of memory?)",
    "mismatched collective": "compare the two lines: which branch depends on the rank, the data or the epoch?",
    "mismatched size": "print the shape on both ranks before the line: an uneven last batch, or a padding that differs",
    "order": "call the groups in one order on all ranks, or from one place",
    "behind": "look at what it does now: `py-spy dump --pid` on that rank, and its data loader and its disk",
    "network": "all ranks are in: test the link (`all_reduce_perf` between these nodes, counters of the switches)",
}


class Entry(NamedTuple):
    """One collective as one rank recorded it."""

    group: str  # the group's name, the same on all ranks
    number: int  # of the collective in its group, from 1
    op: str  # `all_reduce`
    sizes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    over: bool
    line: str  # the user's line, `file:number`


@dataclass(frozen=True)
class Dump:
    """The flight record of one rank.

    Attributes:
        rank: whose it is.
        groups: the members of each group, by name, as far as the dump knows them.
        names: what the user calls each group.
        entries: the collectives, the oldest first.
    """

    rank: int
    groups: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str]
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, rank: int, record: Mapping[str, Any]) -> "Dump":
        """From the dict that a dump is. Messages between two ranks are left out."""
        groups = {name: tuple(ast.literal_eval(each["ranks"])) for name, each in record["pg_config"].items()}
        rows = [each for each in record["entries"] if not each["is_p2p"]]
        return cls(rank, groups, {each["process_group"][0]: each["process_group"][1] for each in rows}, _entries(rows))

    def last(self, group: str) -> Entry | None:
        """The last collective of a group that this rank has entered."""
        return next((each for each in reversed(self.entries) if each.group == group), None)

    @property
    def waiting(self) -> Entry | None:
        """The first collective that is not over, in which the rank stands."""
        return next((each for each in self.entries if not each.over), None)


def _entries(rows: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            each["process_group"][0],
            each["collective_seq_id"],
            each["profiling_name"].partition(":")[2],
            tuple(map(tuple, each["input_sizes"])),
            tuple(each["input_dtypes"]),
            each["retired"] or each["state"] == "completed",
            _line(each.get("frames", ())),
        )
        for each in rows
    )


_NOT_THEIRS = re.compile(r"[/\\](torch|parallel_lab)[/\\](distributed|runtime)[/\\]|typing_extensions|^<")


def _line(frames: Sequence[Mapping[str, Any]]) -> str:
    """The innermost frame that is neither torch's nor the runtime's, as `file:number`."""
    theirs = (f for f in frames if not _NOT_THEIRS.search(f["filename"]))
    return next((f"{os.path.basename(f['filename'])}:{f['line']}" for f in theirs), "")


class _Plain(pickle.Unpickler):
    """Reads numbers, words, lists and dicts, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a flight record has no {module}.{name} in it: this file is something else")


def read(prefix: str | os.PathLike) -> dict[int, Dump]:
    """The dumps whose paths are `prefix` and a rank's number, by rank; a folder stands for all dumps in it.

    Raises:
        FileNotFoundError: there is none.
        pickle.UnpicklingError: a file is no dump.
    """
    where = Path(prefix)
    files = list(where.iterdir()) if where.is_dir() else list(where.parent.glob(f"{where.name}*"))
    found = {}
    for file in files:
        if number := re.search(r"(\d+)$", file.name):
            with open(file, "rb") as opened:
                found[int(number[1])] = Dump.of(int(number[1]), _Plain(opened).load())
    if not found:
        raise FileNotFoundError(f"no flight record at {prefix}: a file for each rank whose name ends in its number")
    return dict(sorted(found.items()))


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: a key of `NEXT`.
        ranks: whose doing it is.
        group: in which group; empty where it is no group's.
        number: at which collective of it; 0 where it is none.
        text: in words.
    """

    kind: str
    ranks: tuple[int, ...]
    group: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}\n  next: {NEXT[self.kind]}"


@dataclass(frozen=True)
class Diagnosis:
    """What the dumps say; its text is what to read first.

    Attributes:
        dumps: by rank.
        findings: the causes; empty where no rank waits.
    """

    dumps: Mapping[int, Dump]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        waiting = sum(dump.waiting is not None for dump in self.dumps.values())
        head = f"{len(self.dumps)} dumps; {waiting} ranks wait in a collective"
        return "\n".join([head, *map(str, self.findings or ["nothing is wrong: no rank waits for another"])])


def diagnose(dumps: Mapping[int, Dump]) -> Diagnosis:
    """The causes of a hang, from the dumps of its ranks: what differs first, then who is missing."""
    members = _members(dumps)
    if differing := _mismatches(dumps, members):
        return Diagnosis(dumps, (*_absent(dumps, members), *differing))
    needs = _needs(dumps, members)
    roots = sorted({other for others in needs.values() for other in others if not needs.get(other)})
    found = [*_absent(dumps, members), *(_behind(rank, needs, dumps) for rank in roots if rank in dumps)]
    if not found and (circle := _circle(needs)):
        found.append(_order(circle, dumps))
    if not found and (stuck := [rank for rank, dump in dumps.items() if dump.waiting]):
        entry = dumps[stuck[0]].waiting
        assert entry
        text = f"all members have entered {_name(entry, dumps)}, and it does not end"
        found.append(Finding("network", tuple(stuck), entry.group, entry.number, text))
    return Diagnosis(dumps, tuple(found))


def _members(dumps: Mapping[int, Dump]) -> dict[str, tuple[int, ...]]:
    """The members of each group: from the dumps, or else all ranks that have an entry of it."""
    known = {name: ranks for dump in dumps.values() for name, ranks in dump.groups.items() if ranks}
    seen: dict[str, set[int]] = defaultdict(set)
    for rank, dump in dumps.items():
        for entry in dump.entries:
            seen[entry.group].add(rank)
    return {name: known.get(name) or tuple(sorted(ranks)) for name, ranks in seen.items()}


def _absent(dumps: Mapping[int, Dump], members: Mapping[str, tuple[int, ...]]) -> list[Finding]:
    lost = sorted({rank for ranks in members.values() for rank in ranks} - set(dumps))
    text = f"{_ranks(lost)} left no dump: dead, or not letting its threads run"
    return [Finding("no dump", tuple(lost), "", 0, text)] if lost else []


def _mismatches(dumps: Mapping[int, Dump], members: Mapping[str, tuple[int, ...]]) -> list[Finding]:
    """The first collective of each group on which those who entered it disagree."""
    meetings: dict[tuple[str, int], dict[int, Entry]] = defaultdict(dict)
    for rank, dump in dumps.items():
        for entry in dump.entries:
            meetings[entry.group, entry.number][rank] = entry
    found: dict[str, Finding] = {}
    for (group, number), entries in sorted(meetings.items()):
        if group not in found and len(members[group]) > 1:
            checks = (("mismatched collective", lambda e: e.op), ("mismatched size", _shape))
            for kind, key in checks:
                if odd := _odd(entries, key):
                    found[group] = Finding(kind, odd, group, number, _differ(entries, odd, dumps))
                    break
    return list(found.values())


def _shape(entry: Entry) -> object:
    return None if entry.op in UNEVEN else (entry.sizes, entry.dtypes)


def _odd(entries: Mapping[int, Entry], key: Callable[[Entry], object]) -> tuple[int, ...]:
    """The ranks whose `key` is not that of most, or of the lowest rank where that is undecided."""
    counts = Counter(key(entry) for entry in entries.values())
    usual = counts.most_common(1)[0][0]
    return tuple(rank for rank, entry in entries.items() if key(entry) != usual)


def _differ(entries: Mapping[int, Entry], odd: Sequence[int], dumps: Mapping[int, Dump]) -> str:
    theirs = entries[odd[0]]
    usual = next(entry for rank, entry in entries.items() if rank not in odd)
    where = f"collective {usual.number} of {_group(usual.group, dumps)}"
    return f"in {where} {_ranks(odd)} called {_call(theirs)}, the others {_call(usual)}"


def _needs(dumps: Mapping[int, Dump], members: Mapping[str, tuple[int, ...]]) -> dict[int, list[int]]:
    """For each rank that waits: the members of its group that have not entered that collective."""
    needs = {}
    for rank, dump in dumps.items():
        if entry := dump.waiting:
            needs[rank] = [other for other in members[entry.group] if _reached(dumps, other, entry) < entry.number]
    return needs


def _reached(dumps: Mapping[int, Dump], rank: int, entry: Entry) -> int:
    last = dumps[rank].last(entry.group) if rank in dumps else None
    return last.number if last else 0


def _behind(rank: int, needs: Mapping[int, list[int]], dumps: Mapping[int, Dump]) -> Finding:
    """What to say of a rank that others wait for, and that waits for nobody."""
    waiters: dict[Entry, int] = Counter()
    for other, missing in needs.items():
        entry = dumps[other].waiting
        if rank in missing and entry:
            waiters[entry] += 1
    first = max(waiters, key=lambda entry: (-len(dumps[rank].groups.get(entry.group, ())), waiters[entry]))
    lacks = "; ".join(f"{_name(entry, dumps)}, in which {_wait(count)}" for entry, count in waiters.items())
    own = dumps[rank].entries[-1:]
    stands = f"its last collective, {_name(own[0], dumps)}, is over" if own else "it has entered none at all"
    affected = sum(1 for others in needs.values() if others)
    text = f"{_ranks([rank])} has not entered {lacks}; {stands}; {affected} ranks wait for it, directly or not"
    return Finding("behind", (rank,), first.group, first.number, text)


def _wait(count: int) -> str:
    return "1 rank waits" if count == 1 else f"{count} ranks wait"


def _circle(needs: Mapping[int, Sequence[int]]) -> list[int]:
    """Ranks each of which waits for the next, and the last for the first; empty if there is no circle."""
    for start in needs:
        path = [start]
        while (following := needs.get(path[-1])) and following[0] not in path:
            path.append(following[0])
        if following and following[0] in path:
            return path[path.index(following[0]) :]
    return []


def _order(circle: Sequence[int], dumps: Mapping[int, Dump]) -> Finding:
    places = []
    for rank, other in zip(circle, [*circle[1:], circle[0]], strict=True):
        entry = dumps[rank].waiting
        assert entry
        places.append(f"rank {rank} waits for rank {other} in {_name(entry, dumps)}")
    first = dumps[circle[0]].waiting
    assert first
    return Finding("order", tuple(circle), first.group, first.number, "a circle: " + ", ".join(places))


def _group(name: str, dumps: Mapping[int, Dump]) -> str:
    said = next((d.names[name] for d in dumps.values() if d.names.get(name) not in (None, "", "undefined")), "")
    return f"group {name}" + (f" ({said})" if said else "")


def _name(entry: Entry, dumps: Mapping[int, Dump]) -> str:
    return f"{_call(entry)}, number {entry.number} of {_group(entry.group, dumps)}"


def _call(entry: Entry) -> str:
    sizes = " and ".join("x".join(map(str, size)) for size in entry.sizes)
    return f"{entry.op}{f' of {sizes}' if sizes else ''}{f' at {entry.line}' if entry.line else ''}"


def _ranks(ranks: Sequence[int]) -> str:
    names = ", ".join(map(str, ranks[:SHOWN])) + (f" and {len(ranks) - SHOWN} more" if len(ranks) > SHOWN else "")
    return f"rank{'s' * (len(ranks) > 1)} {names}"
