"""The chart of a job: what one run of it showed, rank by rank."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_bytes, format_seconds, table

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Unhealthy(AssertionError):
    """A job does not do what it is there for."""

    def __init__(self, seen: str, advice: str = "") -> None:
        super().__init__(f"{seen}. {advice}".strip() if advice else seen)
        self.seen = seen  # what was expected and what was seen
        self.advice = advice  # what to look at next; it names no cause


@dataclass(frozen=True)
class Chart:
    """What one run of a job showed. `draw(chart)` shows its timeline."""

    seed: int  # what its data were drawn from
    results: Sequence[dict[str, Any]]  # by rank, what `instruments.work` returned; empty where the ranks came to no end
    trace: Trace
    output: Sequence[str] = ()  # what each rank printed
    error: str = ""  # the report of a run that came to no end

    @classmethod
    def of(cls, seed: int, results: Sequence[dict[str, Any]], trace: Trace, output: Sequence[str] = ()) -> "Chart":
        """The chart of a run. An injected delay is shown as what it stands for: work of that rank."""
        spans = tuple(s._replace(kind="work") if s.kind == "delay" else s for s in trace.spans)
        return cls(seed, results, Trace(trace.ranks, spans, trace.memory, left_out=trace.left_out), output)

    @property
    def ranks(self) -> int:
        """How many there were."""
        return self.trace.ranks

    def state(self, rank: int) -> dict[str, Tensor]:
        """The parameters and buffers of the model that the job returned on `rank`.

        Raises:
            Unhealthy: it returned something else.
        """
        result = self.results[rank]
        if result["returned"]:
            seen = f"rank {rank} returned {result['returned']}"
            raise Unhealthy(seen, "A job returns the model that it trained, on every rank.")
        return result["state"]

    def column(self, rank: int, name: str) -> list:
        """What `rank` reported as `name`, step by step.

        Raises:
            Unhealthy: it reported nothing of the kind, or not in each row.
        """
        rows = self.results[rank]["rows"]
        if not rows or any(name not in row for row in rows):
            raise Unhealthy(f"rank {rank} did not report {name}", "Leave the line report(...) as it stands.")
        return [row[name] for row in rows]

    def noted(self, rank: int, name: str) -> list:
        """What the instrument `name` noted on `rank`."""
        return self.results[rank]["notes"][name]

    def waited_s(self, rank: int) -> float:
        """Seconds for which `rank` stood still in calls."""
        return sum(s.wait_s for s in self.trace.of(rank))

    def __str__(self) -> str:
        if self.error:
            said = [f"rank {rank} | {line}" for rank, text in enumerate(self.output) for line in text.splitlines()]
            return "\n\n".join(filter(None, ["\n".join(said), self.error]))
        return "\n\n".join(filter(None, [self.log(), self.sums(), self.traffic()]))

    __repr__ = __str__

    def log(self) -> str:
        """What was reported: a row for each step; one number where all ranks say the same, weights as letters."""
        rows = [result["rows"] for result in self.results]
        steps = max(map(len, rows))
        names = list(dict.fromkeys(name for own in rows for row in own for name in row))
        letters: dict[str, str] = {}
        columns = {"step": [str(step) for step in range(steps)]}
        for name in names:
            each = [[own[step].get(name) if step < len(own) else None for own in rows] for step in range(steps)]
            columns[name] = [_cell(values, letters) for values in each]
        legend = "weights: the same letter, the same weights; from rank 0 on." if letters else ""
        return "\n".join(filter(None, [table(columns) if names else "", legend]))

    def sums(self) -> str:
        """Of each rank what it sent, called, read and held, and how long it stood still and did anything else."""
        ranks = range(self.ranks)
        columns = {
            "rank": [str(rank) for rank in ranks],
            "sent": [format_bytes(self.trace.bytes_sent(rank)) for rank in ranks],
            "calls": [_counts(s.kind for s in self.trace.of(rank) if s.lane in ("send", "recv")) for rank in ranks],
        }
        if any("samples" in result["notes"] for result in self.results):
            columns["samples read"] = [_reads(self.noted(rank, "samples")) for rank in ranks]
            columns["of each class"] = [_classes(self.noted(rank, "classes")) for rank in ranks]
        if self.trace.memory:
            columns["most held"] = [format_bytes(self.trace.peak_bytes(rank)) for rank in ranks]
        columns["waited in calls"] = [format_seconds(self.waited_s(rank)) for rank in ranks]
        columns["between calls"] = [
            format_seconds(max(self.trace.duration_s - self.waited_s(rank), 0.0)) for rank in ranks
        ]
        return table(columns)

    def groups(self) -> dict[tuple[int, ...], int]:
        """For each group of ranks that called collectives, the bytes that all of its ranks sent in them."""
        ranks: dict[str, set[int]] = {}
        sent: Counter = Counter()
        for s in self.trace.spans:
            if s.lane == "send" and s.kind != "send":
                ranks.setdefault(s.group, set()).add(s.rank)
                sent[s.group] += s.sent_bytes
        return {tuple(sorted(own)): sent[group] for group, own in ranks.items()}

    def waited_in_groups_s(self) -> list[float]:
        """For each group of `groups`, the seconds that its ranks stood still in its collectives, all together."""
        waited: dict[str, float] = {}
        for s in self.trace.spans:
            if s.lane == "send" and s.kind != "send":
                waited[s.group] = waited.get(s.group, 0.0) + s.wait_s
        return list(waited.values())

    def traffic(self) -> str:
        """Bytes by group of ranks, where there is more than one, and of messages from each rank to each other."""
        groups, messages = self.groups(), self._messages()
        if len(groups) < 2:
            return messages
        names = [" ".join(map(str, ranks)) for ranks in groups]
        by_group = table(
            {
                "ranks of a group": names,
                "sent together": [format_bytes(size) for size in groups.values()],
                "waited together": [format_seconds(each) for each in self.waited_in_groups_s()],
            }
        )
        return "\n\n".join(filter(None, [by_group, messages]))

    def _messages(self) -> str:
        sent: Counter = Counter()
        for s in self.trace.spans:
            if s.kind == "send":
                sent[s.rank, s.peer] += s.sent_bytes
        if not sent:
            return ""
        columns = {"from \\ to": [str(rank) for rank in range(self.ranks)]}
        for peer in range(self.ranks):
            columns[str(peer)] = [
                format_bytes(sent[rank, peer]) if sent[rank, peer] else "-" for rank in range(self.ranks)
            ]
        return "messages, bytes\n" + table(columns)


def _cell(values: Sequence[Any], letters: dict[str, str]) -> str:
    """The values of all ranks in one step."""
    if any(isinstance(value, str) for value in values):
        for value in filter(None, values):
            letters.setdefault(value, LETTERS[len(letters) % len(LETTERS)])
        return "".join(letters[value] if value else "-" for value in values)
    said = ["-" if value is None else f"{value:.4g}" for value in values]
    return said[0] if len(set(said)) == 1 else " | ".join(said)


def _counts(kinds) -> str:
    counted = Counter(kinds)
    return ", ".join(f"{count} {kind}" for kind, count in counted.items()) or "none"


def _reads(reads: Sequence[Sequence[int]]) -> str:
    """How many samples were read, and how many of them were different."""
    places = [place for each in reads for place in each]
    return f"{len(places)}, {len(set(places))} different"


def _classes(targets: Sequence[int]) -> str:
    """`60 60 60 60`: how many samples of class 0, 1, and so on."""
    counted = Counter(targets)
    return " ".join(str(counted[target]) for target in range(max(counted, default=-1) + 1)) or "-"
