"""What a rank of a scheme holds at most, by kind, before anything runs: a tree of terms.

    memory(model("llama3-70b"), Scheme(pp=4, dp=32, tp=8, zero=1), batch=1024).tree()

    weights, gradients, optimizer      numbers of the rank times the bytes that `states` says, over the ranks that share
    gathered                           with ZeRO-3: two layers and what lies outside of layers, in whole
    buffers                            DeepSpeed's flat copy of the gradients
    activations                        what a layer keeps, times layers, times microbatches under way
    recomputed                         with full recomputation: one layer, whole again
    loss                               logits, as they are computed and in float32; only in the last stage
    messages                           activations and gradients that arrived, or wait to be sent
    framework                          workspaces of the products

The fullest rank of the pipeline decides; `rank` asks for another. A kind that only the peak of another moment has does
not count: of logits and a layer that is computed again the larger one does.

What the driver takes beside the allocator is not in the sum: `room` leaves a twentieth of the memory for it.

Sources: Rajbhandari et al. 2020, "ZeRO", section 5; Korthikanti et al. 2022; DeepSpeed's documentation of its memory
estimators; the public goldens of Megatron-LM, which give the bytes of framework, messages and loss to the megabyte, and
the sweep of BigScience's prequel for DeepSpeed's stage 1 (tests/planner).
"""

from functools import lru_cache
from typing import NamedTuple

from parallel_lab.model.config import GPTConfig
from parallel_lab.planner.activations import (
    Kept,
    input_bytes,
    layer_bytes,
    mask_bytes,
    norm_bytes,
    number_bytes,
    own,
    place_bytes,
    shared,
    tokens,
    under_way,
)
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.models import has_experts
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.stages import Numbers, Part, fullest, layer_numbers, padded_vocab, part, table_numbers
from parallel_lab.planner.terms import Term, total

USABLE = 0.95  # assumed: a twentieth goes to CUDA's context, NCCL's buffers and what lies idle between allocations
WORKSPACE_BYTES = 32 * 2**20  # of cuBLAS on Hopper, and wherever CUBLAS_WORKSPACE_CONFIG is :4096:8
FRAMEWORK_BYTES = {"megatron": 3.0 * WORKSPACE_BYTES, "float32": 0.0}
"""cuBLAS has a workspace for each thread that computes, forward and backward, and Transformer Engine one of its own."""


class Bytes(NamedTuple):
    """Bytes of a number under Adam: the weight that computes, its gradient, what the optimizer holds; and a source."""

    weight: float
    gradient: float
    optimizer: float
    source: str


Flight = tuple[float, ...]  # microbatches under way, by stage of the rank

STATES = {
    "megatron": Bytes(2, 4, 12, "Megatron Core user guide, distributed optimizer: 18 bytes"),
    "megatron fp16": Bytes(2, 2, 12, "Megatron Core user guide, distributed optimizer: 20 bytes, with the copies"),
    "megatron fp8": Bytes(4, 4, 12, "as bf16, and the 8-bit weight and its transpose"),
    "deepspeed": Bytes(2, 2, 16, "DeepSpeed, memory estimators: 4 N + 16 N/n in stage 2, 18 N/n in stage 3"),
    "mixed": Bytes(2, 2, 12, "Rajbhandari et al. 2020, ZeRO, section 3.1"),
    "fsdp": Bytes(4, 4, 8, "PyTorch FSDP2: shards in float32"),
    "float32": Bytes(4, 4, 8, "all in float32"),
}


def bytes_of(scheme: Scheme) -> Bytes:
    """The bytes of a number that the scheme's framework holds."""
    if scheme.precision == "fp32":
        return STATES["float32"]
    return STATES.get(f"{scheme.states} {scheme.precision}", STATES[scheme.states])


def memory(
    shape: GPTConfig, scheme: Scheme, batch: int, *, rank: int | None = None, framework_bytes: float | None = None
) -> Term:
    """Bytes of a rank by kind: the most that the allocator has handed out at once.

    Args:
        shape: of the model; `seq` is the length of its sequences.
        scheme: of the run.
        batch: sequences of a step, over all ranks.
        rank: of the pipeline; None for the fullest.
        framework_bytes: of workspaces, where one knows better.
    """
    return _memory(shape, scheme, max(1, scheme.microbatches(batch)), rank, framework_bytes)


@lru_cache(maxsize=2**14)
def _memory(
    shape: GPTConfig, scheme: Scheme, microbatches: int, rank: int | None, framework_bytes: float | None
) -> Term:
    ranks = fullest(shape, scheme) if rank is None else (rank,)
    found = (_of_rank(shape, scheme, microbatches, one, framework_bytes) for one in ranks)
    return max(found, key=lambda term: term.value)


def room(cluster: Cluster) -> float:
    """What of the memory of one accelerator is left for `memory`."""
    return USABLE * cluster.memory_bytes


def fits(shape: GPTConfig, scheme: Scheme, batch: int, cluster: Cluster) -> bool:
    """Whether the fullest rank has room."""
    return memory(shape, scheme, batch).value <= room(cluster)


def at_rest(
    shape: GPTConfig, scheme: Scheme, batch: int, *, rank: int | None = None, framework_bytes: float | None = None
) -> Term:
    """What a rank holds when the optimizer has stepped: no activations, and no loss; the arguments are `memory`'s."""
    ranks, count = fullest(shape, scheme) if rank is None else (rank,), max(1, scheme.microbatches(batch))
    return max((_resting(shape, scheme, count, one, framework_bytes) for one in ranks), key=lambda term: term.value)


def _of_rank(shape: GPTConfig, scheme: Scheme, microbatches: int, rank: int, framework_bytes: float | None) -> Term:
    """The larger of two moments: the end of a forward pass, and the optimizer's step."""
    mine, flight = part(shape, scheme, rank), under_way(scheme, rank, microbatches)
    terms = [*_states(shape, scheme, mine), _gathered(shape, scheme, mine)]
    held = microbatches if scheme.schedule == "gpipe" else 1  # whose losses wait for their backward pass at once
    terms += [_activations(shape, scheme, mine, microbatches, flight, held), *_peak(shape, scheme, mine, held)]
    terms += [_messages(shape, scheme, flight), _framework(scheme, framework_bytes)]
    passing = total("memory", terms, formula=f"pipeline rank {rank} of {scheme.pp}, the sum of")
    if not _copies(scheme):
        return passing
    return max(passing, _resting(shape, scheme, microbatches, rank, framework_bytes), key=lambda term: term.value)


def _resting(shape: GPTConfig, scheme: Scheme, microbatches: int, rank: int, framework_bytes: float | None) -> Term:
    mine, flight = part(shape, scheme, rank), under_way(scheme, rank, microbatches)
    copies = _state("copies", mine.numbers, 4.0 if _copies(scheme) else 0.0, scheme, since=1, source="of gradients")
    gathered = [each for each in _gathered(shape, scheme, mine) if each.name == "outside of layers"]
    terms = [*_states(shape, scheme, mine), copies, *gathered]
    terms += [_messages(shape, scheme, flight), _framework(scheme, framework_bytes)]
    return total("memory", terms, formula=f"pipeline rank {rank} of {scheme.pp} in the optimizer's step, the sum of")


def _copies(scheme: Scheme) -> bool:
    """Whether the optimizer makes a copy of gradients in float32, which the next step's first pass finds gone."""
    return scheme.states == "megatron" and scheme.precision == "fp16"


def _framework(scheme: Scheme, framework_bytes: float | None) -> Term:
    usual = FRAMEWORK_BYTES.get(scheme.states, 2.0 * WORKSPACE_BYTES)
    size = usual if framework_bytes is None else framework_bytes
    return Term("framework", size, "B", "workspaces of products: 32 MiB each", "goldens of Megatron-LM")


def _states(shape: GPTConfig, scheme: Scheme, mine: Part) -> list[Term]:
    each, n = bytes_of(scheme), mine.numbers
    copied = 2 * n.all if scheme.states == "deepspeed" and scheme.zero < 2 else 0.0
    offloaded = scheme.offload == "optimizer"
    summed = 0.0 if scheme.states == "deepspeed" and scheme.zero == 3 else each.gradient
    since = 3 if scheme.states == "deepspeed" else 2  # its stage 2 keeps room for all gradients of a step
    return [
        _state("weights", n, each.weight, scheme, since=3, source=each.source),
        _state("gradients", n, summed, scheme, since=since, source=each.source),
        _state("optimizer", n, 0.0 if offloaded else each.optimizer, scheme, since=1, source=each.source),
        Term("buffers", copied, "B", "2 N: gradients once more, end to end", "BigScience's prequel, stages 0 and 1"),
    ]


def _state(name: str, n: Numbers, each: float, scheme: Scheme, *, since: int, source: str) -> Term:
    over = scheme.sharded if scheme.zero >= since else 1
    over_experts = max(1, over // scheme.ep)
    text = f"{each:g} x {n.dense / 1e6:,.1f} M" + (f" / {over}" if over > 1 else "")
    parts = (Term(f"{name} outside of experts", each * n.dense / over, "B", text, source),)
    if not n.experts:
        return Term(name, parts[0].value, "B", text, source)
    text = f"{each:g} x {n.experts / 1e6:,.1f} M" + (f" / {over_experts}" if over_experts > 1 else "")
    return total(name, (*parts, Term(f"{name} of experts", each * n.experts / over_experts, "B", text)))


def _gathered(shape: GPTConfig, scheme: Scheme, mine: Part) -> Term:
    """What ZeRO-3 has in whole while it computes; and with FSDP's stage 2 all weights, in the type of the products."""
    e = number_bytes(scheme)
    if scheme.zero == 2 and scheme.states == "fsdp":
        return Term("gathered", e * mine.numbers.all, "B", f"{e} N: weights stay gathered", "PyTorch FSDP")
    if scheme.zero < 3 or scheme.sharded == 1:
        return Term("gathered", 0.0, "B")
    layer = max((layer_numbers(shape, scheme.tp, scheme.ep, k).all for k in {0, shape.layers - 1}), default=0.0)
    tables = (mine.first + (mine.last and not (shape.tied and mine.first))) * table_numbers(shape, scheme)
    if scheme.states == "deepspeed":
        largest_numbers = max(layer, float(tables))
        return Term("gathered", 4.0 * largest_numbers, "B", "4 x the largest layer", STATES["deepspeed"].source)
    parts = [
        Term("two layers", 2 * e * layer, "B", f"2 x {e} x {layer / 1e6:,.1f} M: computing and the next"),
        Term("a layer's gradients", e * layer, "B", f"{e} x {layer / 1e6:,.1f} M: before they are summed"),
        Term("outside of layers", float(e * tables), "B", f"{e} x {tables / 1e6:,.1f} M: the root stays gathered"),
    ]
    return total("gathered", parts)


def _activations(shape: GPTConfig, scheme: Scheme, mine: Part, microbatches: int, flight: Flight, held: int) -> Term:
    masked = mask_bytes(scheme) * tokens(shape, scheme) * shape.width / shared(scheme)
    whole = input_bytes(shape, scheme) * (shared(scheme) if own(scheme) else 1)
    head = held * (norm_bytes(shape, scheme) + whole) if mine.last else 0.0
    places = place_bytes(shape, scheme, microbatches, flight[0], mine.first, held if mine.last else 0)
    ends = [
        Term(
            "embedding's mask", flight[0] * masked if mine.first and shape.dropout else 0.0, "B", "s b h, first stage"
        ),
        Term("head's inputs", head, "B", "of the last norm and the head"),
        Term("places", places, "B", "tokens and targets"),
    ]
    many = " + ".join(f"{len(layers)} x {count:g}" for layers, count in zip(mine.stages, flight, strict=True))
    text = f"{many} layers x microbatches under way"
    if scheme.recompute == "full":
        times = sum(len(layers) * count for layers, count in zip(mine.stages, flight, strict=True))
        return total("activations", [Term("layers' inputs", times * input_bytes(shape, scheme), "B", text), *ends])
    kept = _kept(shape, scheme, mine, flight)
    return total("activations", [*(Term(name, size, "B", text) for name, size in kept.items()), *ends])


def _kept(shape: GPTConfig, scheme: Scheme, mine: Part, flight: Flight) -> dict[str, float]:
    """What the rank's layers keep of all microbatches under way, by part."""
    times = {False: 0.0, True: 0.0}
    for layers, count in zip(mine.stages, flight, strict=True):
        for layer in layers:
            times[has_experts(shape, layer)] += count
    dense, mixture = layer_bytes(shape, scheme, 0), layer_bytes(shape, scheme, shape.layers - 1)
    sums = (times[False] * one + times[True] * other for one, other in zip(dense, mixture, strict=True))
    return dict(zip(Kept._fields, sums, strict=True))


def _peak(shape: GPTConfig, scheme: Scheme, mine: Part, held: int) -> list[Term]:
    """What only one moment has: the loss, or a layer that is computed again."""
    e, again = number_bytes(scheme), 0.0
    if scheme.recompute == "full" and mine.layers:
        again = max(layer_bytes(shape, scheme, layer).all for layer in {mine.layers[0], mine.layers[-1]})
    columns = padded_vocab(shape, scheme) / scheme.tp
    each = e + (4 if e < 4 else 0)
    text = f"{each} x s b V / tp: as computed" + (", and in float32" if e < 4 else "")
    loss = Term("loss", held * each * tokens(shape, scheme) * columns if mine.last else 0.0, "B", text)
    recomputed = Term("recomputed", again, "B", "one layer, whole again")
    if not again:
        return [loss]
    return [loss if loss.value > again else recomputed]


def _messages(shape: GPTConfig, scheme: Scheme, flight: Flight) -> Term:
    if scheme.pp == 1:
        return Term("messages", 0.0, "B")
    count = 2 * scheme.stages_each + 1 + (flight[0] if scheme.states == "deepspeed" else 0)
    text = f"{count:g} x s b h: an activation and a gradient for each stage, and one under way"
    return Term("messages", count * input_bytes(shape, scheme), "B", text)
