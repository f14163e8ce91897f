"""Models by name, and the matrices of their layers: dense or with experts, any head layout, any vocabulary.

    model("llama3-70b").parameters            # 70,553,706,496
    matrices(model("mixtral-8x7b"), layer=0)  # what a token is multiplied with

`Model` is a `Shape` with what a plain decoder does not have: heads whose width is free of the model's (PaLM, Qwen3), a
few dense layers before those with experts and shared experts (DeepSeek, ERNIE 4.5), and latent attention (DeepSeek).
`matrices` takes any `GPTConfig`, and everything in this room counts with it.

Positions without a table of their own (rotary, ALiBi, relative ones) all stand as "rotary" here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import yaml

from parallel_lab.model.budget import Shape
from parallel_lab.model.config import GPTConfig

Cut = Literal["column", "row", "none"]


class Matrix(NamedTuple):
    """A matrix of a layer.

    Attributes:
        name: query, key, value, out, up, gate, down, router; latent attention's have their own.
        inputs, outputs: its size.
        cut: which side tensor parallelism cuts.
        part: "attention", "feed_forward", "experts" or "shared"; that of the experts there is `copies` times.
        copies: how many a layer has; 1 but for experts.
        uses: through how many of them a token goes.
    """

    name: str
    inputs: int
    outputs: int
    cut: Cut
    part: Literal["attention", "feed_forward", "experts", "shared"] = "attention"
    copies: int = 1
    uses: int = 1

    @property
    def numbers(self) -> int:
        """Its parameters, in all copies."""
        return self.inputs * self.outputs * self.copies

    @property
    def flops(self) -> int:
        """Of the forward pass, for one token."""
        return 2 * self.inputs * self.outputs * self.uses


class Latent(NamedTuple):
    """Multi-head latent attention (DeepSeek-V2, 2024): ranks of its two latents, widths of a head's parts.

    With `query=0` queries have no latent (DeepSeek-V2-Lite).
    """

    query: int
    key_value: int
    plain: int
    rotary: int
    value: int


@dataclass(frozen=True)
class Model(Shape):
    """A `Shape` with a name, a source, and what plain decoders do not have.

    Attributes:
        name: in the table.
        head: width of a head, where it is not width / heads.
        dense_layers: layers before the first that has experts.
        dense_hidden: hidden width of those; None as in experts.
        shared_hidden: hidden width of the experts that all tokens go through, together.
        attention_bias: whether query, key and value have a bias where nothing else has (Qwen2).
        qk_norm: whether queries and keys are normalized (Qwen3).
        latent: latent attention; None for keys and values of their own.
        source: of these numbers.
    """

    name: str = ""
    head: int | None = None
    dense_layers: int = 0
    dense_hidden: int | None = None
    shared_hidden: int = 0
    attention_bias: bool = False
    qk_norm: bool = False
    latent: Latent | None = None
    source: str = ""

    @property
    def head_width(self) -> int:
        """The width of one head, of query and key."""
        return self.head or self.width // self.heads

    @property
    def parameters(self) -> int:
        """N: all numbers that are trained."""
        return parameters(self)

    @property
    def active_parameters(self) -> int:
        """Those that one token uses."""
        idle = (m for k in range(self.layers) for m in matrices(self, k))
        return self.parameters - sum(m.inputs * m.outputs * (m.copies - m.uses) for m in idle)

    @property
    def matmul_parameters(self) -> int:
        """The weights that a token is multiplied with, the output layer included."""
        flops = sum(m.flops for k in range(self.layers) for m in matrices(self, k))
        return flops // 2 + self.vocab * self.width

    def flops_per_token(self, seq: int, causal: bool = False) -> int:
        """FLOPs of forward and backward for one token of a sequence of `seq`, as `Shape` counts them."""
        pairs = (seq + 1) / 2 if causal else seq
        return round(6 * self.matmul_parameters + 3 * self.layers * attention_flops(self, pairs))

    def kv_bytes_per_token(self, number_bytes: float = 2) -> float:
        """Bytes of the cache of keys and values for one token of one sequence; latent attention keeps its latents."""
        if self.latent:
            return self.layers * (self.latent.key_value + self.latent.rotary) * number_bytes
        return super().kv_bytes_per_token(number_bytes)


def attention_flops(shape: GPTConfig, pairs: float) -> float:
    """Forward of the core of attention of one layer, for one token that sees `pairs` of them: scores and sums."""
    query, value = core_widths(shape)
    return 2 * pairs * shape.heads * (query + value)


def core_widths(shape: GPTConfig) -> tuple[int, int]:
    """The widths of a head of queries and keys, and of values."""
    latent = getattr(shape, "latent", None)
    if latent:
        return latent.plain + latent.rotary, latent.value
    return shape.head_width, shape.head_width


def matrices(shape: GPTConfig, layer: int = 0) -> tuple[Matrix, ...]:
    """What a token is multiplied with in a layer, in order; experts as one with so many copies."""
    return (*_attention(shape), *_feed_forward(shape, layer))


def _attention(shape: GPTConfig) -> Iterator[Matrix]:
    latent: Latent | None = getattr(shape, "latent", None)
    if latent is None:
        inner = shape.heads * shape.head_width
        yield Matrix("query", shape.width, inner, "column")
        yield Matrix("key", shape.width, shape.kv_width, "column")
        yield Matrix("value", shape.width, shape.kv_width, "column")
        yield Matrix("out", inner, shape.width, "row")
        return
    if latent.query:
        yield Matrix("query down", shape.width, latent.query, "none")
    yield Matrix("query up", latent.query or shape.width, shape.heads * (latent.plain + latent.rotary), "column")
    yield Matrix("key value down", shape.width, latent.key_value + latent.rotary, "none")
    yield Matrix("key value up", latent.key_value, shape.heads * (latent.plain + latent.value), "column")
    yield Matrix("out", shape.heads * latent.value, shape.width, "row")


def _feed_forward(shape: GPTConfig, layer: int) -> Iterator[Matrix]:
    if not has_experts(shape, layer):
        dense = getattr(shape, "dense_hidden", None) if shape.experts > 1 else None
        yield from _three(shape, dense or shape.hidden_width, "feed_forward", 1, 1)
        return
    yield Matrix("router", shape.width, shape.experts, "none", "feed_forward")
    yield from _three(shape, shape.hidden_width, "experts", shape.experts, shape.active_experts)
    shared = getattr(shape, "shared_hidden", 0)
    if shared:
        yield from _three(shape, shared, "shared", 1, 1)


def _three(shape: GPTConfig, hidden: int, part: Any, copies: int, uses: int) -> Iterator[Matrix]:
    for name in ("gate", "up") if shape.gated else ("up",):
        yield Matrix(name, shape.width, hidden, "column", part, copies, uses)
    yield Matrix("down", hidden, shape.width, "row", part, copies, uses)


def has_experts(shape: GPTConfig, layer: int) -> bool:
    """Whether that layer has experts."""
    return shape.experts > 1 and layer >= getattr(shape, "dense_layers", 0)


def layer_parameters(shape: GPTConfig, layer: int = 0) -> int:
    """All numbers of one layer: matrices, biases, norms."""
    return sum(m.numbers for m in matrices(shape, layer)) + vectors(shape, layer)


def vectors(shape: GPTConfig, layer: int = 0) -> int:
    """Biases and norms of one layer."""
    found = matrices(shape, layer)
    norm = 2 * shape.width * (2 if shape.bias and shape.norm == "layer" else 1)
    latent: Latent | None = getattr(shape, "latent", None)
    norm += latent.query + latent.key_value if latent else 0
    norm += 2 * shape.head_width if getattr(shape, "qk_norm", False) else 0
    if shape.bias:
        return norm + sum(m.outputs * m.copies for m in found if m.name != "router")
    some = ("query", "key", "value") if getattr(shape, "attention_bias", False) else ()
    return norm + sum(m.outputs for m in found if m.name in some)


def parameters(shape: GPTConfig) -> int:
    """All numbers of a model."""
    tables = (1 if shape.tied else 2) * shape.vocab * shape.width
    positions = shape.seq * shape.width if shape.positions == "learned" else 0
    last = shape.width * (2 if shape.bias and shape.norm == "layer" else 1)
    return tables + positions + last + sum(layer_parameters(shape, k) for k in range(shape.layers))


def model(name: str, seq: int | None = None) -> Model:
    """A model of the table, with sequences of `seq` tokens where they differ from those it was trained with.

    Raises:
        ValueError: there is none of that name; the message has near ones.
    """
    known = _table()
    if name not in known:
        near = get_close_matches(name, known, 3, 0.4)
        raise ValueError(f"no model {name!r}: {'did you mean ' + ' or '.join(near) if near else ', '.join(known)}")
    row = dict(known[name])
    like = row.pop("like", None)
    if "latent" in row:
        row["latent"] = Latent(**row["latent"])
    found = replace(model(like), **row, name=name) if like else Model(**row, name=name)
    return replace(found, seq=seq) if seq else found


def models() -> list[str]:
    """The names in the table."""
    return list(_table())


@cache
def _table() -> dict[str, dict[str, Any]]:
    with files("parallel_lab.planner").joinpath("models.yaml").open(encoding="utf-8") as lines:
        found = yaml.safe_load(lines)
    return {name: row for name, row in found.items() if not name.startswith("_")}
