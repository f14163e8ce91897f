"""Published runs as rows that the planner can predict: model, cluster, scheme, batch, and the seconds that a step took.

    for row in rows():
        print(row.stratum, row.error(constants()))

The rows are facts from public tables; the head of rows.csv names the sources. What a table leaves open stands there as
well. A row with a note is known to hold what no term of the planner explains; it is not fitted, and counts on its own.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from parallel_lab.model.budget import Shape
from parallel_lab.planner.clusters import cluster
from parallel_lab.planner.constants import Constants
from parallel_lab.planner.estimate import Estimate, estimate
from parallel_lab.planner.scheme import Scheme

_SHAPE = ("vocab", "seq", "layers", "heads", "width")
_SIZES = ("pp", "dp", "tp", "zero", "chunks", "microbatch")
_WORDS = ("schedule", "recompute", "precision", "states", "attention")
_SWITCHES = ("dropout", "sequence_parallel", "overlap")
COLUMNS: tuple[str, ...] = ("stratum", "cluster", *_SHAPE, *_SIZES, *_WORDS, *_SWITCHES, "batch", "step_s", "note")


@dataclass(frozen=True)
class Row:
    """A published run.

    Attributes:
        stratum: runs of one kind from one table.
        cluster: by its name in the planner's table.
        shape: the model, with the length of its sequences.
        scheme: the layout.
        overlap: whether the framework ran sums over data ranks beside computation.
        batch: sequences of a step.
        step_s: what was measured; 0 for a run that did not fit.
        note: what no term explains, or what the source got wrong; such rows are not fitted.
    """

    stratum: str
    cluster: str
    shape: Shape
    scheme: Scheme
    overlap: bool
    batch: int
    step_s: float
    note: str = ""

    @property
    def model(self) -> tuple[int, ...]:
        """Which rows are of one model."""
        return (self.shape.width, self.shape.layers, self.shape.heads)

    @property
    def layout(self) -> tuple[int, ...]:
        """Which rows are of one layout."""
        return (self.scheme.pp, self.scheme.dp, self.scheme.tp, self.scheme.microbatch)

    @property
    def choice(self) -> tuple[int, ...]:
        """Which rows answer one question: a model, so many tokens a step, so many GPUs of one kind."""
        return (*self.model, self.shape.seq, self.batch, self.scheme.world, hash(self.cluster))

    def estimate(self, constants: Constants | None = None) -> Estimate:
        """What the planner says of it."""
        where = cluster(self.cluster, gpus=self.scheme.world)
        return estimate(
            self.shape, where, self.scheme, self.batch, constants=constants, overlap=self.overlap, check=False
        )

    def error(self, constants: Constants | None = None) -> float:
        """Predicted over measured, less 1."""
        return self.estimate(constants).step_s / self.step_s - 1


@cache
def rows() -> tuple[Row, ...]:
    """The public rows, those with a note among them."""
    with files("parallel_lab.planner").joinpath("rows.csv").open(encoding="utf-8") as lines:
        return tuple(_row(line) for line in csv.DictReader(text for text in lines if not text.startswith("#")))


def _row(line: dict[str, str]) -> Row:
    switches = {name: line[name] == "1" for name in _SWITCHES}
    shape = gpt(**{name: int(line[name]) for name in _SHAPE}, dropout=switches["dropout"])
    words = {name: line[name] for name in _WORDS}
    sizes = {name: int(line[name]) for name in _SIZES}
    scheme = Scheme(**sizes, **words, sequence_parallel=switches["sequence_parallel"])  # pyright: ignore[reportArgumentType]
    overlap, batch = switches["overlap"], int(line["batch"])
    return Row(line["stratum"], line["cluster"], shape, scheme, overlap, batch, float(line["step_s"]), line["note"])


def gpt(vocab: int, seq: int, layers: int, heads: int, width: int, dropout: bool) -> Shape:
    """A model of GPT-2's kind, of which all rows are: layer norms, biases, a tied head, a GELU."""
    like_gpt2 = Shape(gated=False, tied=True, bias=True, positions="learned", norm="layer")
    sizes = {"vocab": vocab, "seq": seq, "layers": layers, "heads": heads, "width": width}
    return replace(like_gpt2, **sizes, dropout=0.1 * dropout)


def text_of(found: Iterable[Row]) -> Iterable[dict[str, object]]:
    """The rows as lines of rows.csv."""
    for row in found:
        line: dict[str, object] = {name: getattr(row.shape, name) for name in _SHAPE}
        line |= {name: getattr(row.scheme, name) for name in (*_SIZES, *_WORDS)}
        line["dropout"], line["overlap"] = int(row.shape.dropout > 0), int(row.overlap)
        line["sequence_parallel"] = int(row.scheme.sequence_parallel)
        line |= {name: getattr(row, name) for name in ("stratum", "cluster", "batch", "note")}
        yield line | {"step_s": f"{row.step_s:.6g}"}
