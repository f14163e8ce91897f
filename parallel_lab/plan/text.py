"""A plan as text: `to_grid` writes one line a rank, `parse` reads such lines back.

    rank 0:  0F0  0F1  0B0  0B1
    rank 1:  1F0  1B0  1F1  1B1

A column counts ops, not time.
"""

import re
from collections.abc import Collection

from parallel_lab.plan.op import Op, Plan

_LABEL = re.compile(r"\s*rank\s+(\d+)\s*:")
_GAP = "…"


def to_grid(plan: Plan, mark: Op | Collection[Op] | None = None, around: int | None = None) -> str:
    """One line a rank, its ops in issue order in aligned columns, the ops of `mark` in brackets: `[2F0]`.

    Columns count ops, not time: what stands in one column does not run at one moment (`view.draw` shows time).
    With `around`, only the rows and columns at most that far from a marked op are shown, and `…` where some are left
    out.
    """
    marked = {mark} if isinstance(mark, Op) else set(mark or ())
    spots = [(r, c) for r, row in enumerate(plan.rows) for c, op in enumerate(row) if op in marked] if marked else []
    rows = _near({r for r, _ in spots}, around, plan.ranks)
    columns = _near({c for _, c in spots}, around, max((len(row) for row in plan.rows), default=0))
    cells = [[_cell(plan.rows[r], c, marked) for c in columns] if r is not None else [] for r in rows]
    widths = [max((len(line[k]) for line in cells if line), default=0) for k in range(len(columns))]
    digits = len(str(max(plan.ranks - 1, 0)))
    lines = []
    for r, line in zip(rows, cells, strict=True):
        label = _GAP if r is None else f"rank {r:>{digits}}: "
        lines.append((label + "".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=False))).rstrip())
    return "\n".join(lines)


def _near(spots: set[int], around: int | None, size: int) -> list[int | None]:
    """The positions from 0 to `size` that are within `around` of a spot, with None where some are left out."""
    if around is None or not spots:
        return list(range(size))
    kept = sorted({k for spot in spots for k in range(max(0, spot - around), min(size, spot + around + 1))})
    shown: list[int | None] = []
    last = -1
    for k in kept:
        if k > last + 1:
            shown.append(None)
        shown.append(k)
        last = k
    return shown if last == size - 1 else [*shown, None]


def _cell(row: tuple[Op, ...], column: int | None, marked: set[Op]) -> str:
    if column is None:
        return f" {_GAP} "
    if column >= len(row):
        return ""
    return f"[{row[column]}]" if row[column] in marked else f" {row[column]} "


def parse(text: str) -> Plan:
    """The plan of a grid such as `to_grid` writes: a row a line, ops as `2F0` between spaces.

    The label `rank 0:` may be left out; a rank with nothing to do needs it, because blank lines are skipped. The grid
    does not say what ops wait for: receives are paired with their sends, and all else is the caller's to add. Raises
    ValueError, naming the line, for text that is no step and for a label out of turn.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    ops = [op for rank, line in enumerate(lines) for op in _parse_row(rank, line)]
    return Plan.of(ops, ranks=len(lines))


def _parse_row(rank: int, line: str) -> list[Op]:
    label = _LABEL.match(line)
    if label and int(label[1]) != rank:
        raise ValueError(f"row {rank} is labeled rank {label[1]}: rows stand in rank order, from 0")
    try:
        return [Op.parse(rank, word) for word in line[label.end() if label else 0 :].split()]
    except ValueError as error:
        raise ValueError(f"rank {rank}: {error}") from None
