"""The design round: a layout is typed, and the planner says whether it fits and how far it is from its best.

The planner is a model of costs (chapter 21). What it says is simulated, and no fact about a real cluster.
"""

from functools import cache, partial
from typing import Any

from parallel_lab.course import page
from parallel_lab.interview.board_layout import Layout, layout_of
from parallel_lab.interview.roles import Design
from parallel_lab.interview.rounds import LONG_S, Judged, Turn
from parallel_lab.interview.words import lang, say
from parallel_lab.planner import Estimate, room
from parallel_lab.planner.words import words
from parallel_lab.trace.units import format_bytes, format_seconds

CHAPTER = "21"
CLOSE, FAR = 0.1, 0.5  # shares over the planner's best step: a strong answer, and one in part


def laid_out(asked: Design, text: str = "") -> Layout:
    """The model on its accelerators as `text` has it, `tp=8 pp=4 zero=1`.

    Raises:
        ValueError: `text` is no layout, or none of so many accelerators; the message says why.
    """
    found = layout_of(f"{asked.model} on {asked.gpus} {asked.cluster}: {text} batch={asked.batch}")
    if found.scheme.world != asked.gpus:
        raise ValueError(f"that is {found.scheme.world} ranks (pp x dp x cp x tp), and there are {asked.gpus}")
    return found


@cache
def best(asked: Design) -> Estimate:
    """The planner's best."""
    return laid_out(asked).best()


def judged(asked: Design, given: Any, language: str) -> Judged:
    """What the planner says to a layout.

    Raises:
        ValueError: it is no layout, or the planner refuses it; the message says why.
    """
    if not str(given).strip():
        raise ValueError(say("rounds.design-empty", language))
    layout = laid_out(asked, str(given))
    found = layout.estimate()
    if not found.fits:
        sizes = {"need": format_bytes(found.memory.value), "room": format_bytes(room(layout.cluster))}
        return Judged(0.0, say("rounds.design-unfit", language, **sizes))
    over, step = found.step_s / best(asked).step_s - 1, format_seconds(found.step_s)
    if over <= CLOSE:
        return Judged(1.0, say("rounds.design-close", language, step=step, share=CLOSE))
    return Judged(0.5 if over <= FAR else 0.2, say("rounds.design-slower", language, step=step, share=over))


def design(asked: Design, language: str) -> Turn:
    """Model, cluster and batch; the layout is typed and judged by the planner."""
    layout, found = laid_out(asked), best(asked)
    shape, chip = layout.shape, layout.cluster.accelerator
    numbers = {
        "model": asked.model,
        "billions": shape.parameters / 1e9,
        "layers": shape.layers,
        "heads": shape.heads,
        "gpus": asked.gpus,
        "accelerator": chip.name,
        "cluster": asked.cluster,
        "per_node": layout.cluster.gpus_per_node,
        "gib": chip.memory_bytes / 2**30,
        "batch": asked.batch,
        "seq": f"{shape.seq:,}",
    }
    about = {"scheme": words(found.scheme), "step": format_seconds(found.step_s)}
    end = say("rounds.design-best", language, **about, memory=format_bytes(found.memory.value))
    text = say("rounds.design", language, **numbers)
    more: dict[str, Any] = {"rubric": (page.paragraph(end, lang=lang(language)),), "speak_s": LONG_S}
    more["title"] = f"{asked.model}, {asked.gpus} x {chip.name} ({asked.cluster})"
    judge = partial(judged, asked, language=language)
    return Turn("design", "layout", asked.key, CHAPTER, text, text, judge=judge, **more)
