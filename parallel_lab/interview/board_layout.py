"""A layout on the whiteboard: `llama3-8b on 64 h100-ib: tp=8 pp=2 dp=4`. The planner says memory and time.

The names before the colon are those of `plab plan --list`. What follows it are fields of `planner.Scheme`, and `batch`
and `seq`. All numbers are those of the planner's model of costs; nothing is run.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from parallel_lab.course import page
from parallel_lab.course.planning import first
from parallel_lab.interview.board import Answer, block, picture, sentence
from parallel_lab.interview.words import from_english
from parallel_lab.planner import Cluster, Estimate, Model, NothingFits, Scheme, cluster, estimate, model, room, search
from parallel_lab.planner.words import trade, words
from parallel_lab.trace.units import format_bytes, format_seconds, format_share
from parallel_lab.view import draw

TOKENS_OF_A_STEP = 2**22  # where no batch is given, as in `plab plan`
EXAMPLE = "llama3-8b on 64 h100-ib: tp=8 pp=2 dp=4"
_LAYOUT = re.compile(r"\s*([\w.-]+)\s+(?:on|在)\s+([\d,_]+)\s*(?:x|×|块|张)?\s*([\w.-]+)\s*[:：]?\s*(.*)", re.DOTALL)
_FIELDS = {one.name: one for one in fields(Scheme)}
_YES = {"yes": True, "true": True, "no": False, "false": False}


@dataclass(frozen=True)
class Layout:
    """What was written: a model, machines, a scheme, and the sequences of a step."""

    shape: Model
    cluster: Cluster
    scheme: Scheme
    batch: int

    def estimate(self) -> Estimate:
        """What it costs by the planner.

        Raises:
            ValueError: it cannot be trained so; the message says why.
        """
        return estimate(self.shape, self.cluster, self.scheme, self.batch)

    def best(self, told: Callable[[int, int, float], None] | None = None) -> Estimate:
        """The fastest layout that the planner finds for the same model, machines and batch.

        Raises:
            NothingFits: no layout fits.
        """
        return search(self.shape, self.cluster, self.batch, progress=told).best


def is_layout(text: str) -> bool:
    """Whether `text` begins as a layout does; no Python begins so."""
    return bool(_LAYOUT.fullmatch(text))


def layout_of(text: str) -> Layout:
    """What a text such as `EXAMPLE` names.

    Raises:
        ValueError: a name or a number is wrong; the message says which.
    """
    match = _LAYOUT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no layout: write {EXAMPLE!r}")
    given = _given(match[4])
    gpus = int(re.sub(r"[,_]", "", match[2]))
    if gpus < 1:
        raise ValueError("there is no layout on 0 accelerators: write how many there are")
    shape, of = model(match[1], given.pop("seq", None)), cluster(match[3], gpus=gpus)
    of = replace(of, gpus_per_node=min(of.gpus_per_node, of.gpus))
    batch = given.pop("batch", None)
    try:
        scheme = Scheme(**{"dp": _rest(given, gpus), **given})
    except TypeError as wrong:  # what was typed is wrong, and no program
        raise ValueError(str(wrong)) from None
    each = scheme.dp * scheme.microbatch
    return Layout(shape, of, scheme, batch or max(1, TOKENS_OF_A_STEP // shape.seq // each) * each)


def _rest(given: dict[str, Any], gpus: int) -> int:
    """Data ranks where none are given: as many as the other axes leave."""
    others = 1
    for axis in ("pp", "cp", "tp"):
        size = given.get(axis, 1)
        others *= size if isinstance(size, int) else 1
    return max(1, gpus // max(1, others))


def _given(text: str) -> dict[str, Any]:
    """`tp=8 pp=2` as a dictionary, with whole numbers as such."""
    found: dict[str, Any] = {}
    for word in re.split(r"[\s,，;]+", re.sub(r"\s*=\s*", "=", text.strip())):
        if not word:
            continue
        name, sign, value = word.partition("=")
        if not sign or name not in {*_FIELDS, "batch", "seq"}:
            raise ValueError(f"{word!r}: expected {', '.join(['batch', 'seq', *_FIELDS])}, each as in tp=8")
        found[name] = int(value) if value.isdecimal() else _YES.get(value.lower(), value)
        if name in ("batch", "seq") and (not isinstance(found[name], int) or found[name] < 1):
            raise ValueError(f"{word!r}: expected a whole number above 0")
    return found


def answer_layout(text: str, language: str, told: Callable[[int, int, float], None] | None = None) -> Answer:
    """Whether a layout fits, what its step takes, and how that stands beside the best that the planner finds."""
    try:
        layout = layout_of(text)
        layout.scheme.check(layout.shape, layout.cluster, layout.batch)
        found = layout.estimate()
    except ValueError as wrong:
        return Answer("layout", False, [block(from_english(str(wrong), language))], None, language)
    parts = [*_memory(layout, found, language), *_time(found, language), *_beside(layout, found, language, told)]
    if found.fits:
        parts.append(picture(draw(first(found.trace))))
    parts.append(sentence("whiteboard.layout-model", language))
    return Answer("layout", found.fits, parts, found.trace, language)


def _memory(layout: Layout, found: Estimate, language: str) -> list[page.Part]:
    sizes = {"needed": format_bytes(found.memory.value), "room": format_bytes(room(layout.cluster))}
    chip = layout.cluster.accelerator
    values = sizes | {"chip": chip.name, "whole": format_bytes(chip.memory_bytes), "batch": f"{layout.batch:,}"}
    said = sentence("whiteboard.layout-memory", language, scheme=words(layout.scheme), **values)
    return [said, block(found.memory.tree(1))]


def _time(found: Estimate, language: str) -> list[page.Part]:
    values = {"step": format_seconds(found.step_s), "mfu": format_share(found.mfu)}
    tokens = f"{found.tokens_per_s:,.0f}"
    return [sentence("whiteboard.layout-step", language, tokens=tokens, **values), block(found.step.tree(1))]


def _beside(
    layout: Layout, found: Estimate, language: str, told: Callable[[int, int, float], None] | None
) -> list[page.Part]:
    """The best layout that the planner finds, and what it does otherwise."""
    try:
        best = layout.best(told)
    except NothingFits as wrong:
        return [sentence("whiteboard.layout-none", language), block(str(wrong))]
    times = f"{found.step_s / best.step_s:.2f}"
    values = {"best": words(best.scheme), "step": format_seconds(best.step_s), "times": times}
    return [sentence("whiteboard.layout-beside", language, **values), block(trade(best, found))]
