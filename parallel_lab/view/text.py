"""A trace in text: a row per rank, then the bubble; what a screen reader reads and a comparison of outputs compares."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from parallel_lab.plan import NAMES
from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_bytes, format_seconds, format_share, table
from parallel_lab.view.layout import trace_of
from parallel_lab.view.style import order, shorten

WORDS = (
    "busy: the share of the time shown in which the rank computed. "
    "overlap: how long it computed and communicated at the same time. "
    "bubble: the share of the time of all ranks in which nothing was computed."
)
_MOST_KINDS = 6
_MOST_CUT = 3
_FOLD_ABOVE = 8  # with more ranks, neighbors that have the same numbers share a line


def summary(source, times: bool | None = None, names: Sequence[str] | None = None) -> str:
    """The numbers of a run, a trace or a plan: per rank busy share, bytes, messages, overlap, memory; then the bubble.

    With `times=False` all that comes from a clock is left out, so that the text is the same in every run; by default
    times are given where they were simulated (or are slots of a plan) and left out where they were measured. `names`
    replace the ranks' numbers.
    """
    trace, slots = trace_of(source)
    times = trace.simulated if times is None else times
    columns = _columns(trace, times, slots)
    if names:
        columns = {"": list(names)} | columns
        del columns["rank"]
    elif trace.ranks > _FOLD_ABOVE:
        columns = _fold(columns)
    bubble = [f"bubble {format_share(trace.bubble())}"] if times and trace.spans else []
    return "\n".join([_headline(trace, times, slots), table(columns), *bubble])


def alt_text(trace: Trace, times: bool, slots: bool) -> str:
    """The alternative text of a timeline: one or two sentences."""
    kinds = ", ".join(shorten(NAMES.get(kind, kind), 40) for kind in order(s.kind for s in trace.spans)[:_MOST_KINDS])
    drawn = f"It shows {kinds}." if kinds else "It is empty."
    bubble = f" Bubble {format_share(trace.bubble())}." if times and trace.spans else ""
    return f"Timeline: {_headline(trace, times, slots)}. {drawn}{bubble}"


def plural(count: int, word: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _headline(trace: Trace, times: bool, slots: bool) -> str:
    ranks = plural(trace.ranks, "rank")
    if slots:
        return f"{ranks}, {plural(len(trace.spans), 'step')} in {plural(round(trace.duration_s), 'slot')}"
    lasted = f", {format_seconds(trace.duration_s)}" if times else ""
    return f"{ranks}, {plural(len(trace.spans), 'span')}{lasted}{' (simulated)' if trace.simulated else ''}"


def _columns(trace: Trace, times: bool, slots: bool) -> dict[str, list[str]]:
    """The columns that this trace has something to say in."""
    ranks = range(trace.ranks)
    columns = {"rank": [str(rank) for rank in ranks]}
    if times:
        whole_s = trace.duration_s or 1.0
        columns["busy"] = [format_share(trace.busy_s(rank) / whole_s) for rank in ranks]
    if any(s.sent_messages or s.sent_bytes for s in trace.spans):
        columns["bytes sent"] = [format_bytes(trace.bytes_sent(rank)) for rank in ranks]
        columns["messages"] = [f"{trace.messages(rank):,}" for rank in ranks]
    if times and len({s.lane for s in trace.spans}) > 1:
        overlap = [trace.overlap_s(rank) for rank in ranks]
        columns["overlap"] = [plural(round(o), "slot") if slots else format_seconds(max(o, 0.0)) for o in overlap]
    if trace.memory:
        columns["peak memory"] = [format_bytes(trace.peak_bytes(rank)) for rank in ranks]
    columns["steps" if slots else "spans"] = [_counts(trace, rank) for rank in ranks]
    if any(s.cut for s in trace.spans):
        columns["not ended"] = [_not_ended(trace, rank) for rank in ranks]
    return columns


def _not_ended(trace: Trace, rank: int) -> str:
    """The calls in which a rank was when its run was cut short, each with its line."""
    peers = {"send": "to", "recv": "from"}
    named = []
    for s in (s for s in trace.of(rank) if s.cut):
        peer = f" {peers[s.kind]} rank {s.peer}" if s.kind in peers and s.peer >= 0 else ""
        named.append(f"{shorten(s.name)}{peer}" + (f" ({s.line})" if s.line else ""))
    rest = [f"{len(named) - _MOST_CUT} more"] if len(named) > _MOST_CUT else []
    return ", ".join(named[:_MOST_CUT] + rest) or "none"


def _fold(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """One row for ranks that follow each other and agree in all but their number: `0-15`."""
    rows = list(zip(*columns.values(), strict=True))
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row[1:])]
    folded = [(f"{g[0][0]}-{g[-1][0]}" if len(g) > 1 else g[0][0], *g[0][1:]) for g in groups]
    return {name: list(cells) for name, cells in zip(columns, zip(*folded, strict=True), strict=True)}


def _counts(trace: Trace, rank: int) -> str:
    counts = Counter(s.kind for s in trace.of(rank))
    named = [f"{counts[kind]} {shorten(kind)}" for kind in order(counts)]
    rest = [plural(len(named) - _MOST_KINDS, "more kind")] if len(named) > _MOST_KINDS else []
    return ", ".join(named[:_MOST_KINDS] + rest) or "none"
