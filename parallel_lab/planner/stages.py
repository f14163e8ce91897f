"""Which layers each pipeline rank has, and how many numbers it holds of them.

Layers are dealt out as evenly as they go; where they do not divide, the first and the last stage have fewer, since they
have the tables of the vocabulary (Llama 3's 126 layers over 128 chunks; Zero Bubble's 22 over 8 stages). This course's
own executor (`states="float32"`) cuts where the slowest stage is fastest, and a head weighs as much as it multiplies.

Of a matrix that tensor parallelism cuts, a rank has 1/tp; of experts 1/ep as well. Norms, routers, positions and the
biases of row-cut matrices are copies. Of fewer key-value heads than tp ranks each rank has one, whole.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from parallel_lab.model.config import GPTConfig
from parallel_lab.model.formulas import matmul_parameters
from parallel_lab.pipeline import partition
from parallel_lab.planner.models import Matrix, has_experts, matrices, vectors
from parallel_lab.planner.scheme import TWO_CHUNKS, Scheme

VOCAB_PADDING = 128  # Megatron-LM pads the vocabulary to a multiple of 128 tp


class Numbers(NamedTuple):
    """Numbers that a rank holds, before data ranks shard them: those of experts, and all else, have other copies."""

    dense: float
    experts: float

    def __add__(self, other: object) -> "Numbers":
        if not isinstance(other, Numbers):
            return NotImplemented
        return Numbers(self.dense + other.dense, self.experts + other.experts)

    @property
    def all(self) -> float:
        """Both."""
        return self.dense + self.experts


class Copies(NamedTuple):
    """Numbers that some data ranks hold alike: how many, on how many ranks, how many share them, and how far apart."""

    numbers: float
    ranks: int
    shards: int
    stride: int


def copies(numbers: Numbers, scheme: Scheme) -> tuple[Copies, ...]:
    """Who holds the same: all data ranks, but of experts that are cut every ep-th; `numbers` are a rank's."""
    tp, ep, shards = scheme.tp, scheme.ep, scheme.sharded if scheme.zero else 1
    if ep == 1:
        return (Copies(numbers.all, scheme.data, shards, tp),)
    experts = Copies(numbers.experts, scheme.data // ep, max(1, shards // ep), tp * ep)
    return Copies(numbers.dense, scheme.data, shards, tp), experts


def split(shape: GPTConfig, scheme: Scheme) -> list[range]:
    """The layers of each stage, 0 being the first; there are pp times `stages_each` stages."""
    stages = scheme.pp * scheme.stages_each
    if scheme.states == "float32" and stages > 1:
        return _own_split(shape, stages)
    base, extra = divmod(shape.layers, stages)
    middle = min(extra, max(0, stages - 2))
    ends = extra - middle  # 0 or 1
    counts = [base + (1 <= k <= middle) + (k == 0 and ends > 0) for k in range(stages)]
    starts = [sum(counts[:k]) for k in range(stages)]
    return [range(start, start + count) for start, count in zip(starts, counts, strict=True)]


@cache
def _own_split(shape: GPTConfig, stages: int) -> list[range]:
    head = shape.vocab * shape.width
    block = (matmul_parameters(shape) - head) / shape.layers
    cut = partition([0.0, *[block] * shape.layers, float(head)], stages)
    return [range(max(0, each.start - 1), min(shape.layers, max(0, each.stop - 1))) for each in cut]


def stages_of(scheme: Scheme, rank: int) -> tuple[int, ...]:
    """The stages of a pipeline rank: one, or every pp-th, or, of a V, one on the way down and one on the way up."""
    if scheme.schedule in TWO_CHUNKS:
        return (rank, 2 * scheme.pp - 1 - rank)
    return tuple(range(rank, scheme.pp * scheme.stages_each, scheme.pp))


class Part(NamedTuple):
    """What a pipeline rank has.

    Attributes:
        rank: in the pipeline.
        layers: their numbers.
        stages: the same by its stages.
        first, last: whether it has the embedding, and the head.
        numbers: that it holds.
        ends: of those, the numbers outside of layers.
    """

    rank: int
    layers: tuple[int, ...]
    stages: tuple[range, ...]
    first: bool
    last: bool
    numbers: Numbers
    ends: float


@cache
def part(shape: GPTConfig, scheme: Scheme, rank: int) -> Part:
    """What the pipeline rank `rank` has."""
    ranges, mine = split(shape, scheme), stages_of(scheme, rank)
    layers = tuple(layer for stage in mine for layer in ranges[stage])
    first, last = 0 in mine, scheme.pp * scheme.stages_each - 1 in mine
    found = Numbers(ends := _ends(shape, scheme, first, last), 0.0)
    for kind in (False, True):
        count = sum(has_experts(shape, layer) == kind for layer in layers)
        one = layer_numbers(shape, scheme.tp, scheme.ep, shape.layers - 1 if kind else 0) if count else Numbers(0, 0)
        found += Numbers(count * one.dense, count * one.experts)
    return Part(rank, layers, tuple(ranges[stage] for stage in mine), first, last, found, ends)


def fullest(shape: GPTConfig, scheme: Scheme) -> Sequence[int]:
    """Pipeline ranks of which one is the fullest: the ends, and where layers become more or of another kind.

    Between them a rank has no more layers than the one before it, and no more microbatches under way.
    """
    dense = getattr(shape, "dense_layers", 0)
    each = max(1, shape.layers // (scheme.pp * scheme.stages_each))
    some = {0, 1, scheme.pp - 1} | ({dense // each, dense // each + 1} if dense else set())
    return sorted(rank for rank in some if 0 <= rank < scheme.pp)


def padded_vocab(shape: GPTConfig, scheme: Scheme) -> int:
    """Columns of the vocabulary over all tp ranks, padding included."""
    unit = scheme.tp * (VOCAB_PADDING if scheme.states in ("megatron", "deepspeed") else 1)
    return -(-shape.vocab // unit) * unit


def table_numbers(shape: GPTConfig, scheme: Scheme) -> int:
    """A rank's part of one table of the vocabulary."""
    return padded_vocab(shape, scheme) // scheme.tp * shape.width


def _ends(shape: GPTConfig, scheme: Scheme, first: bool, last: bool) -> float:
    tables = first + (last and not (shape.tied and first))
    positions = shape.seq * shape.width if first and shape.positions == "learned" else 0
    norm = shape.width * (2 if shape.bias and shape.norm == "layer" else 1) if last else 0
    return tables * table_numbers(shape, scheme) + positions + norm


@cache
def layer_numbers(shape: GPTConfig, tp: int, ep: int, layer: int) -> Numbers:
    """A rank's numbers of one layer."""
    dense, experts = float(_norms(shape, layer)), 0.0
    for matrix in matrices(shape, layer):
        share = _share(shape, matrix, tp)
        numbers = matrix.numbers * share + _bias(shape, matrix) * (share if matrix.cut == "column" else 1)
        if matrix.part == "experts":
            experts += numbers / ep
        else:
            dense += numbers
    return Numbers(dense, experts)


def _share(shape: GPTConfig, matrix: Matrix, tp: int) -> float:
    """Which part of a matrix a tensor rank holds."""
    if matrix.name in ("key", "value"):
        return max(1 / tp, 1 / (shape.kv_heads or shape.heads))
    return 1.0 if matrix.cut == "none" else 1 / tp


def _bias(shape: GPTConfig, matrix: Matrix) -> int:
    some = getattr(shape, "attention_bias", False) and matrix.name in ("query", "key", "value")
    return matrix.outputs * matrix.copies if (shape.bias and matrix.name != "router") or some else 0


def _norms(shape: GPTConfig, layer: int) -> int:
    return vectors(shape, layer) - sum(_bias(shape, matrix) for matrix in matrices(shape, layer))
