"""A plan as text: `to_grid` writes one line per rank, `parse` reads such lines back.

rank 0:  0F0  0F1  0B0  0B1
rank 1:  1F0  1B0  1F1  1B1
"""

import re
from collections.abc import Collection

from parallel_lab.plan.op import Op, Plan

_LABEL = re.compile(r"\s*rank\s+(\d+)\s*:")
_GAP = "…"


def to_grid(plan: Plan, mark: Op | Collection[Op] = (), around: int | None = None) -> str:
    """One line per rank, its ops in issue order in aligned columns, the ops of `mark` in brackets: `[2F0]`.

    With `around`, only the rows and columns at most that far from a marked op are shown, and `…` where some are left
    out.
    """
    marked = {mark} if isinstance(mark, Op) else set(mark)
    spots = [(r, c) for r, row in enumerate(plan.rows) for c, op in enumerate(row) if op in marked]
    rows = _near({r for r, _ in spots}, around, plan.ranks)
    columns = _near({c for _, c in spots}, around, max((len(row) for row in plan.rows), default=0))
    cells = {r: [_cell(plan.rows[r], c, marked) for c in columns] for r in rows if r is not None}
    widths = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]
    digits = len(str(max(plan.ranks - 1, 0)))
    lines = []
    for r in rows:
        row = (f"{text:<{width}}" for text, width in zip(cells.get(r, ()), widths, strict=False))  # type: ignore[arg-type]
        lines.append(_GAP if r is None else f"rank {r:>{digits}}: {''.join(row)}".rstrip())
    return "\n".join(lines)


def _near(spots: set[int], around: int | None, size: int) -> list[int | None]:
    """The positions from 0 to `size` that are within `around` of a spot, with None where some are left out."""
    if around is None or not spots:
        return list(range(size))
    shown: list[int | None] = []
    for k in range(size):
        if any(abs(k - spot) <= around for spot in spots):
            shown.append(k)
        elif not shown or shown[-1] is not None:
            shown.append(None)
    return shown


def _cell(row: tuple[Op, ...], column: int | None, marked: set[Op]) -> str:
    if column is None:
        return f" {_GAP} "
    if column >= len(row):
        return ""
    return f"[{row[column]}]" if row[column] in marked else f" {row[column]} "


def parse(text: str) -> Plan:
    """The plan of a grid such as `to_grid` writes: a row a line, ops as `2F0` between spaces.

    The label `rank 0:` may be left out; a rank with nothing to do needs it, because blank lines are skipped. The grid
    does not say what ops wait for: receives are paired with their sends, and all else is the caller's to add.

    Raises:
        ValueError: text that is no step, or a label out of turn; the message names the line.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    ops: list[Op] = []
    for rank, line in enumerate(lines):
        label = _LABEL.match(line)
        if label and int(label[1]) != rank:
            raise ValueError(f"row {rank} is labeled rank {label[1]}: rows stand in rank order, from 0")
        try:
            ops += [Op.parse(rank, word) for word in line[label.end() if label else 0 :].split()]
        except ValueError as error:
            raise ValueError(f"rank {rank}: {error}") from None
    return Plan.of(ops, ranks=len(lines))
