"""`plan_widget()`: the planner with sliders, and the timeline of the step that it recommends.

Where no widgets run, the picture of the first numbers is shown, with its numbers in text. What is drawn is simulated by
the planner's model of costs, as everything that `plab plan` says.
"""

from dataclasses import replace
from functools import cache
from typing import Any

from parallel_lab.planner.clusters import cluster
from parallel_lab.planner.estimate import Estimate
from parallel_lab.planner.models import model
from parallel_lab.planner.search import search
from parallel_lab.planner.space import Space
from parallel_lab.planner.words import words
from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_bytes, format_seconds, format_share
from parallel_lab.view import draw, sliders
from parallel_lab.view.drawing import Drawing
from parallel_lab.view.sliders import Sliders

BEST = "best"
MODELS = ("llama3-8b", "llama3-70b", "llama3-405b", "mixtral-8x7b", "gpt3-175b")
CLUSTERS = ("h100-ib", "a100-selene", "a100-jz", "gb200-nvl72")
SIZES: tuple[int | str, ...] = (BEST, 1, 2, 4, 8, 16)
RANKS_DRAWN = 16  # stages of which a picture has room


@cache
def _best(name: str, of: str, gpus: int, batch: int, pp: int | str, tp: int | str) -> Estimate:
    stages, tensor = ((size,) if isinstance(size, int) else None for size in (pp, tp))
    return search(model(name), cluster(of, gpus=gpus), batch, space=Space(pp=stages, tp=tensor)).best


def picture(name: str, of: str, gpus: int, batch: int, pp: int | str = BEST, tp: int | str = BEST) -> Drawing:
    """The timeline of a step of the best scheme, with what it costs in its title and text.

    Args:
        name: of the model.
        of: the cluster's name.
        gpus: how many accelerators.
        batch: sequences of a step.
        pp: stages, or "best".
        tp: tensor ranks, or "best".

    Raises:
        ValueError: there is no such model or cluster, or no scheme fits; the message says what to change.
    """
    best = _best(name, of, gpus, batch, pp, tp)
    said = (
        f"{words(best.scheme)}: step {format_seconds(best.step_s)}, MFU {format_share(best.mfu)},"
        f" {format_bytes(best.memory.value)} on the fullest rank"
    )
    stages = best.scheme.pp
    some = f", the first {RANKS_DRAWN} of {stages} stages" if stages > RANKS_DRAWN else ""
    shown = draw(first(best.trace), title=f"{name}, {gpus} GPUs of {of}: {words(best.scheme).split(', ')[0]}{some}")
    shown.text = f"{said}\n{best.step.tree(1)}\n{shown.text}"
    return shown


def first(trace: Trace) -> Trace:
    """The ranks that a picture has room for."""
    if trace.ranks <= RANKS_DRAWN:
        return trace
    spans = tuple(span for span in trace.spans if span.rank < RANKS_DRAWN)
    return replace(trace, ranks=RANKS_DRAWN, spans=spans)


def plan_widget(
    name: str = "llama3-70b", of: str = "h100-ib", gpus: int = 256, batch: int = 256, **choices: Any
) -> Sliders:
    """Sliders for model, cluster, accelerators, batch, stages and tensor ranks, over the picture of the best scheme.

    Args:
        name: of the model with which it begins.
        of: the cluster.
        gpus: accelerators.
        batch: sequences of a step.
        **choices: other lists to choose from, by the names of the sliders.

    Raises:
        ValueError: the first numbers are not among their choices, or fit nowhere.
    """

    def shown(model=name, cluster=of, gpus=gpus, batch=batch, pp=BEST, tp=BEST) -> Drawing:
        return picture(model, cluster, gpus, batch, pp, tp)

    offered: dict[str, Any] = {
        "model": MODELS,
        "cluster": CLUSTERS,
        "gpus": (8, 16, 32, 64, 128, 256, 512, 1024),
        "batch": (32, 64, 128, 256, 512, 1024, 2048),
        "pp": SIZES,
        "tp": SIZES,
    }
    return sliders(shown, **(offered | choices))
