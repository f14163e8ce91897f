"""How the best scheme changes with the machine: twice the network, half the memory, and so on.

A row searches the changed machine anew, and prices the old best scheme there too. The difference of the two is what it
is worth to plan again; where the scheme stays the same, the recommendation does not hang on that number.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from parallel_lab.model.budget import Shape
from parallel_lab.planner.clusters import Cluster, faster
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.search import Found, Model, NothingFits, model_of, search
from parallel_lab.planner.space import Space
from parallel_lab.planner.words import changes, percent
from parallel_lab.trace.units import format_seconds, table

CHANGES: dict[str, dict[str, float]] = {
    "as it is": {},
    "network between nodes x 2": {"network": 2},
    "network between nodes / 2": {"network": 0.5},
    "links in the node / 4": {"inside": 0.25},
    "memory x 2": {"memory": 2},
    "memory / 2": {"memory": 0.5},
    "FLOP/s x 2": {"flops": 2},
    "batch x 2": {"batch": 2},
    "batch / 2": {"batch": 0.5},
}
"""What is changed, and by which factor."""


@dataclass(frozen=True)
class Row:
    """What a change of the machine does.

    Attributes:
        change: in words.
        found: the new search; None where nothing fits.
        kept: the estimate of the old best scheme on the changed machine; None where it cannot run.
        per_sequence: the new best step over the old one, both divided by their batch; None where nothing fits.
    """

    change: str
    found: Found | None
    kept: Any
    per_sequence: float | None


def sensitivity(
    shape: Shape,
    cluster: Cluster,
    batch: int,
    *,
    changes: Iterable[str] = tuple(CHANGES),
    space: Space | None = None,
    model: Model | None = None,
    found: Found | None = None,
    step: Callable[[str], None] = lambda change: None,
) -> list[Row]:
    """A row for each of `changes`, names of `CHANGES`.

    Args:
        shape: of the model.
        cluster: as it is.
        batch: sequences of a step.
        changes: which ones; all by default.
        space: what may be chosen.
        model: what prices a scheme.
        found: the search of the machine as it is, where it is known already.
        step: called with the name of each change before it is searched.

    Raises:
        NothingFits: on the machine as it is.
        KeyError: a change has no such name.
    """
    model = model or model_of()
    found = found or search(shape, cluster, batch, space=space, model=model)
    rows = []
    for change in changes:
        step(change)
        rows.append(_row(change, shape, cluster, batch, space, model, found))
    return rows


def _row(
    change: str, shape: Shape, cluster: Cluster, batch: int, space: Space | None, model: Model, base: Found
) -> Row:
    factors = dict(CHANGES[change])
    sequences = max(1, round(batch * factors.pop("batch", 1)))
    machine = faster(cluster, **factors)
    old: Scheme = base.best.scheme
    kept = model.estimate(shape, machine, old, sequences) if old.fits_in(shape, machine, sequences) else None
    kept = kept if kept and kept.fits else None
    try:
        now = base if not CHANGES[change] else search(shape, machine, sequences, space=space, model=model)
    except NothingFits:
        return Row(change, None, kept, None)
    ratio = now.best.step_s / base.best.step_s * batch / sequences
    return Row(change, now, kept, ratio)


def text(rows: Iterable[Row]) -> str:
    """The rows as a table."""
    rows = list(rows)
    base = next((row.found.best.scheme for row in rows if row.found and not CHANGES[row.change]), None)
    return table(
        {
            "change": [row.change for row in rows],
            "step": [format_seconds(row.found.best.step_s) if row.found else "nothing fits" for row in rows],
            "a sequence": [percent(row.per_sequence - 1) if row.per_sequence else "" for row in rows],
            "old scheme": [_kept(row) for row in rows],
            "best scheme": [_scheme(row, base) for row in rows],
        }
    )


def _kept(row: Row) -> str:
    if row.kept is None:
        return "does not fit"
    return percent(row.kept.step_s / row.found.best.step_s - 1) if row.found else ""


def _scheme(row: Row, base: Scheme | None) -> str:
    if row.found is None:
        return ""
    scheme = row.found.best.scheme
    if base is None:
        return str(scheme)
    return "the same" if scheme == base else changes(base, replace(scheme))
