"""The design round: a layout is typed, and the planner says whether it fits and how far it is from its best.

The planner is a model of costs (chapter 21). What it says is simulated, and no fact about a real cluster.
"""

import re
from dataclasses import fields
from functools import cache, partial
from typing import Any

from parallel_lab.course import page
from parallel_lab.interview.roles import Design
from parallel_lab.interview.rounds import LONG_S, Judged, Turn
from parallel_lab.interview.words import lang, say
from parallel_lab.planner.clusters import cluster
from parallel_lab.planner.estimate import Estimate, estimate
from parallel_lab.planner.memory import room
from parallel_lab.planner.models import model
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.search import search
from parallel_lab.planner.words import words
from parallel_lab.trace.units import format_bytes, format_seconds

CHAPTER = "21"
CLOSE, FAR = 0.1, 0.5  # shares over the planner's best step: a strong answer, and one in part
_TYPES = {one.name: one.type for one in fields(Scheme)}
_PAIR = re.compile(r"(\w+)\s*=\s*([\w.]+)")


def scheme_from(text: str, world: int) -> Scheme:
    """The scheme that `text` names, as `tp=8 pp=4 zero=1`; dp follows from the number of ranks.

    Raises:
        ValueError: a name or a value is unknown, or the axes do not make up `world` ranks.
    """
    given = dict(_PAIR.findall(text))
    if not given or _PAIR.sub("", text).strip(" ,;\n"):
        raise ValueError(f"{text.strip()!r} is no layout: write it as tp=8 pp=4 zero=1")
    if unknown := [name for name in given if name not in _TYPES]:
        raise ValueError(f"{unknown[0]!r} is no part of a layout: there are {', '.join(_TYPES)}")
    values: dict[str, Any] = {name: _value(text) for name, text in given.items()}
    inner = 1
    for axis in ("pp", "cp", "tp"):
        if not isinstance(size := values.get(axis, 1), int) or size < 1:
            raise ValueError(f"{axis}={size}: an axis has a whole number of ranks")
        inner *= size
    values.setdefault("dp", max(world // inner, 1))
    scheme = Scheme(**values)
    if scheme.world != world:
        raise ValueError(f"that is {scheme.world} ranks (pp x dp x cp x tp), and there are {world}")
    return scheme


def _value(text: str) -> int | bool | str:
    if text in ("True", "False"):
        return text == "True"
    return int(text) if text.isdecimal() else text


@cache
def best(asked: Design) -> Estimate:
    """The planner's best."""
    return search(model(asked.model), cluster(asked.cluster, gpus=asked.gpus), asked.batch).best


def judged(asked: Design, given: Any, language: str) -> Judged:
    """What the planner says to a layout.

    Raises:
        ValueError: it is no layout, or the planner refuses it; the message says why.
    """
    shape, machines = model(asked.model), cluster(asked.cluster, gpus=asked.gpus)
    found = estimate(shape, machines, scheme_from(str(given), asked.gpus), asked.batch)
    if not found.fits:
        sizes = {"need": format_bytes(found.memory.value), "room": format_bytes(room(machines))}
        return Judged(0.0, say("rounds.design-unfit", language, **sizes))
    over, step = found.step_s / best(asked).step_s - 1, format_seconds(found.step_s)
    if over <= CLOSE:
        return Judged(1.0, say("rounds.design-close", language, step=step, share=CLOSE))
    return Judged(0.5 if over <= FAR else 0.2, say("rounds.design-slower", language, step=step, share=over))


def design(asked: Design, language: str) -> Turn:
    """Model, cluster and batch; the layout is typed and judged by the planner."""
    shape, machines = model(asked.model), cluster(asked.cluster, gpus=asked.gpus)
    chip, found = machines.accelerator, best(asked)
    numbers = {
        "model": asked.model,
        "billions": shape.parameters / 1e9,
        "layers": shape.layers,
        "heads": shape.heads,
        "gpus": asked.gpus,
        "accelerator": chip.name,
        "cluster": asked.cluster,
        "per_node": machines.gpus_per_node,
        "gib": chip.memory_bytes / 2**30,
        "batch": asked.batch,
        "seq": f"{shape.seq:,}",
    }
    about = {"scheme": words(found.scheme), "step": format_seconds(found.step_s)}
    end = say("rounds.design-best", language, **about, memory=format_bytes(found.memory.value))
    text = say("rounds.design", language, **numbers)
    more: dict[str, Any] = {"rubric": (page.paragraph(end, lang=lang(language)),), "speak_s": LONG_S}
    more["title"] = f"{asked.model}, {asked.gpus} x {chip.name} ({asked.cluster})"
    return Turn(
        "design", "layout", asked.key, CHAPTER, text, text, judge=partial(judged, asked, language=language), **more
    )
