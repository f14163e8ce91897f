"""Schemes and estimates in words: one way to name a scheme, to compare two, and to say why one was chosen.

A *reason* is a counterfactual: the scheme with one choice changed, priced by the same model. Either it does not fit, or
it is slower, and then the part of the step that grew most is named; a change that costs next to nothing is a tie, and
said to be one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from parallel_lab.model.budget import Shape
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.scheme import CHOICES, Scheme
from parallel_lab.trace.units import format_bytes, format_seconds

AXES = ("pp", "dp", "cp", "tp", "ep")
GB = 1e9


def words(scheme: Scheme) -> str:
    """`pp=4 dp=32 tp=8, ZeRO-1, 1f1b, microbatch 1, recompute selective`: axes of one rank are left out."""
    sizes = " ".join(f"{axis}={getattr(scheme, axis)}" for axis in AXES if getattr(scheme, axis) > 1) or "one rank"
    parts = [sizes]
    if scheme.data > 1:
        inside = f" in groups of {scheme.shard}" if scheme.shard and scheme.zero else ""
        parts.append(f"ZeRO-{scheme.zero}{inside}")
    if scheme.pp > 1:
        parts.append(f"{scheme.schedule}{f' x {scheme.chunks}' if scheme.chunks > 1 else ''}")
    parts += [f"microbatch {scheme.microbatch}", f"recompute {scheme.recompute}", scheme.precision]
    if scheme.tp > 1 and not scheme.sequence_parallel:
        parts.append("no sequence parallelism")
    if scheme.offload != "none":
        parts.append("optimizer in host memory")
    return ", ".join(parts)


def trade(best: Any, other: Any) -> str:
    """What `other` costs and brings against `best`: time, memory, and the parts of the step that differ most."""
    share = other.step_s / best.step_s - 1
    saved = (best.memory.value - other.memory.value) / GB
    memory = f"{abs(saved):.1f} GB {'less' if saved > 0 else 'more'} memory"
    text = f"{percent(share)} time" + (f", {memory}" if abs(saved) >= 0.1 else "")
    moved = _moved(best, other)
    return text + (f"; {', '.join(moved)}" if moved else "")


def percent(share: float) -> str:
    """`+3.1 %`; what rounds to nothing is `+0.0 %`."""
    return f"{round(100 * share, 1) + 0.0:+.1f} %"


def _moved(best: Any, other: Any) -> list[str]:
    """The part of the step that grew most, and the one that shrank most, where it is 0.5 % of the step or more."""
    changes = {name: _part_s(other, name) - _part_s(best, name) for name in _names(best) | _names(other)}
    ordered = sorted(changes.items(), key=lambda item: (item[1], item[0]))
    chosen = [ordered[-1], ordered[0]] if len(ordered) > 1 else ordered
    return [
        f"{name} {'+' if seconds > 0 else '-'}{format_seconds(abs(seconds))}"
        for name, seconds in chosen
        if abs(seconds) >= 0.005 * best.step_s
    ]


def _names(estimate: Any) -> set[str]:
    return {part.name for part in estimate.step}


def _part_s(estimate: Any, name: str) -> float:
    return sum(part.value for part in estimate.step if part.name == name)


def reasons(
    best: Any, shape: Shape, cluster: Cluster, batch: int, estimate: Callable[[Shape, Cluster, Scheme, int], Any]
) -> list[str]:
    """For each choice of the best scheme, what the best other value would do, all else being equal."""
    found: dict[str, list[tuple[bool, float, str]]] = {}
    for label, other in neighbors(best.scheme):
        if not other.fits_in(shape, cluster, batch):
            continue
        one = estimate(shape, cluster, other, batch)
        changed = changes(best.scheme, other)
        if one.fits:
            found.setdefault(label, []).append((False, one.step_s, f"{changed}: {trade(best, one)}"))
        else:
            needs = f"{changed}: does not fit, {format_bytes(one.memory.value)} on the fullest rank"
            found.setdefault(label, []).append((True, one.memory.value, needs))
    chosen = {label: min(rows)[2] for label, rows in found.items()}
    return [f"{label}: {text}" for label, text in chosen.items() if text not in _before(chosen, label)]


def _before(chosen: dict[str, str], label: str) -> list[str]:
    """What the choices ahead of this one say: an axis grows at the cost of another, and is told once."""
    return list(chosen.values())[: list(chosen).index(label)]


def changes(best: Scheme, other: Scheme) -> str:
    """`tp 8 -> 4, dp 32 -> 64`."""
    fields = [name for name in Scheme.__dataclass_fields__ if getattr(best, name) != getattr(other, name)]
    return ", ".join(f"{name} {getattr(best, name)} -> {getattr(other, name)}" for name in fields)


def neighbors(scheme: Scheme) -> Iterator[tuple[str, Scheme]]:
    """(choice, the scheme with another value of it): an axis twice or half as long, at the cost of another axis."""
    for axis in ("tp", "pp", "cp", "ep"):
        for sizes in _resized(scheme, axis):
            yield from _valid(axis, scheme, **sizes)
    for zero in CHOICES["zero"]:
        if zero != scheme.zero and scheme.data > 1:
            yield from _valid("ZeRO", scheme, zero=zero, shard=None)
    for name in ("recompute", "schedule", "microbatch"):
        for value in _others(scheme, name):
            chunks = 2 if value == "interleaved" else 1
            yield from _valid(name, scheme, **{name: value}, **({"chunks": chunks} if name == "schedule" else {}))


def _resized(scheme: Scheme, axis: str) -> Iterator[dict[str, int]]:
    size = getattr(scheme, axis)
    if axis == "ep":
        yield from ({"ep": other} for other in (size // 2, 2 * size) if other)
        return
    for other in (name for name in ("dp", "pp", "tp") if name != axis):
        count = getattr(scheme, other)
        if count % 2 == 0:
            yield {axis: 2 * size, other: count // 2}
        if size % 2 == 0:
            yield {axis: size // 2, other: 2 * count}


def _others(scheme: Scheme, name: str) -> list[Any]:
    mine = getattr(scheme, name)
    if name == "microbatch":
        return [mine // 2, 2 * mine] if mine > 1 else [2]
    if name == "schedule" and scheme.pp == 1:
        return []
    return [value for value in CHOICES[name] if value != mine]


def _valid(label: str, scheme: Scheme, **choices: Any) -> Iterator[tuple[str, Scheme]]:
    if choices.get("pp") == 1:
        choices |= {"schedule": "1f1b", "chunks": 1}
    try:
        yield label, replace(scheme, **choices)
    except (TypeError, ValueError):
        return
