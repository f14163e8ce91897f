"""What data parallelism sends and holds, in closed form; the tests hold each against a recorded trace.

N is the number of trained parameters (the paper's Psi), n the number of ranks (its N_d), t the tokens of a rank in one
forward and backward pass, F the FLOP/s that it reaches, W the bytes per second of a link in one direction. Sources:
Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5 and figure 1
(memory), section 7 (communication); Patarasuk & Yuan 2009 (what a ring sends); Wang et al. 2023, "ZeRO++" (hpz).

Bytes are those that one rank sends, with built-in collectives counted as rings. ZeRO's section 7 counts elements moved,
without the factor (n-1)/n. That stage 1 sends what DDP sends, as the paper says (section 1), holds where gradients are
reduce-scattered. Here stage 1 gets averaged gradients, from an all-reduce as in DDP, and so sends 3 instead of 2. The
flags by which ranks agree that nobody has a reason to stop are left out: 4 bytes in each step of Zero1 and Zero2, and
in each backward pass of Zero2 and Zero3 that sends gradients.

The N to put in is padded. Zero1 and Zero2 pad each flat vector to a multiple of n elements (`padded`): a vector for
each dtype, or a bucket. Zero3 pads each parameter to a multiple of n rows (`units.padded`).
"""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from parallel_lab.model.budget import LAYOUTS

TECHNIQUES = ("ddp", "zero1", "zero2", "zero3")


class Moves(NamedTuple):
    """How often a step moves (n-1)/n of all parameters or gradients; an all-reduce is one of each."""

    gathers: int  # all-gathers of parameters
    scatters: int  # reduce-scatters of gradients


def padded(sizes: Iterable[int], n: int) -> int:
    """The elements of flat vectors of `sizes` elements when each is padded to a multiple of n."""
    return sum(ceil(size / n) * n for size in sizes)


def moves(technique: str, microbatches: int = 1, no_sync: bool = False) -> Moves:
    """What one step of `microbatches` backward passes moves; with `no_sync`, gradients travel with the last one only.

    Zero3 gathers in each forward and in each backward pass, `no_sync` or not: it has nowhere else to find its weights.
    """
    _check(technique, 1)
    syncs = 1 if no_sync else microbatches
    return {
        "ddp": Moves(syncs, syncs),
        "zero1": Moves(syncs + 1, syncs),
        "zero2": Moves(1, syncs),
        "zero3": Moves(2 * microbatches, syncs),
    }[technique]


def sent_bytes(
    technique: str,
    parameters: int,
    n: int,
    item_bytes: int,
    microbatches: int = 1,
    no_sync: bool = False,
    kept: int = 0,
) -> int:
    """Bytes that each rank sends per step: DDP 2 (n-1)/n N, Zero1 3, Zero2 2, Zero3 3 (times `item_bytes`).

    `parameters` is N, padded; `kept` of them Zero3 gathers once for both passes: those of its root unit, padded.
    """
    _check(technique, n)
    each = moves(technique, microbatches, no_sync)
    elements = (each.gathers + each.scatters) * parameters - kept * each.gathers // 2
    return elements * (n - 1) * item_bytes // n


def held_bytes(technique: str, parameters: int, n: int, mixed: bool = False, layout: str = "") -> float:
    """Bytes of model states per rank under Adam: parameters, gradients, moments and, with `mixed`, master copies.

    In float32: 4 parameter + 4 gradient + 8 moments. With `mixed`: 2 + 2 in 16 bits, and 12 of master copy and moments
    in float32; `layout` names another of `LAYOUTS`. Stage 1 shards what the optimizer holds, stage 2 the gradients
    too, stage 3 the parameters too.
    Left out: activations, buckets and unsharded units under way, padding, and Adam's step count (4 bytes a tensor).
    """
    _check(technique, n)
    weight, gradient, optimizer = LAYOUTS[layout or ("mixed" if mixed else "float32")]
    stage = TECHNIQUES.index(technique)
    shared = sum(size for size, since in ((optimizer, 1), (gradient, 2), (weight, 3)) if stage >= since)
    return parameters * (weight + gradient + optimizer - shared + shared / n)


class Passes(NamedTuple):
    """A number for the forward pass and one for the backward pass."""

    forward: float
    backward: float


def pass_bytes(technique: str, gather_bytes: float = 2, reduce_bytes: float = 2) -> Passes:
    """Bytes per parameter that cross each link of the ring while a pass computes, for many ranks: (n-1)/n is 1.

    `gather_bytes` and `reduce_bytes` are those of one parameter and of one gradient on the wire. Stages 1 and 2 gather
    the new parameters behind the next forward pass, and stage 1 reduce-scatters, as Megatron's distributed optimizer
    does. Beside `TECHNIQUES` there are two that shard inside the node, of which the bytes *between nodes* are given:
    "hybrid" (HSDP, MiCS: an all-reduce of shards) and "hpz" (ZeRO++: the backward pass gathers inside the node).
    """
    crossing = {
        "ddp": Passes(0, 2 * reduce_bytes),
        "zero1": Passes(gather_bytes, reduce_bytes),
        "zero2": Passes(gather_bytes, reduce_bytes),
        "zero3": Passes(gather_bytes, gather_bytes + reduce_bytes),
        "hybrid": Passes(0, 2 * reduce_bytes),
        "hpz": Passes(gather_bytes, reduce_bytes),
    }
    if technique not in crossing:
        raise ValueError(f"technique {technique!r}: expected one of {', '.join(crossing)}")
    return crossing[technique]


def tokens_to_hide(
    technique: str,
    flops_per_s: float,
    bytes_per_s: float,
    *,
    gather_bytes: float = 2,
    reduce_bytes: float = 2,
    recomputed: bool = False,
) -> Passes:
    """The tokens per rank from which each pass takes as long as its communication; the larger of the two decides.

    A pass computes 2 N t FLOPs forward and 4 N t backward, 6 N t where activations are `recomputed`, and moves
    `pass_bytes` times N bytes, so N cancels. A bound: it takes all links to be busy all the time, no latency, and
    computing that loses nothing to communication. `bytes_per_s` is what the ring gets: of a network the sum of the
    cards of one node, since each node sends its ring's bytes once, and no more than the link inside the node.
    """
    sent = pass_bytes(technique, gather_bytes, reduce_bytes)
    ratio = flops_per_s / bytes_per_s
    return Passes(sent.forward / 2 * ratio, sent.backward / (6 if recomputed else 4) * ratio)


def pass_seconds(
    technique: str,
    parameters: float,
    tokens: float,
    flops_per_s: float,
    bytes_per_s: float,
    *,
    gather_bytes: float = 2,
    reduce_bytes: float = 2,
    recomputed: bool = False,
) -> tuple[Passes, Passes]:
    """Seconds that each pass computes, and seconds that its communication takes; the arguments are as above.

    A step takes at least the longer of the two, pass by pass.
    """
    flops = Passes(2, 6 if recomputed else 4)
    sent = pass_bytes(technique, gather_bytes, reduce_bytes)
    computing = Passes(*(each * parameters * tokens / flops_per_s for each in flops))
    return computing, Passes(*(each * parameters / bytes_per_s for each in sent))


def node_sent_bytes(
    technique: str, parameters: int, nodes: int, per_node: int, item_bytes: int = 2, microbatches: int = 1
) -> float:
    """Bytes that one node sends to others per step, by all of its cards, when every reduction waits for the last pass.

    Ranks are numbered node by node, so a ring of all n = nodes * per_node ranks leaves each node once, with (n-1)/n of
    the bytes. "hybrid" all-reduces `per_node` shards of N / per_node, each over `nodes` ranks.
    """
    if min(nodes, per_node) < 1:
        raise ValueError(f"{nodes=}, {per_node=}: expected at least 1 of each")
    forward, backward = pass_bytes(technique, item_bytes, 0)
    gathered, reduced = (forward + backward) * microbatches, sum(pass_bytes(technique, 0, item_bytes))
    if technique in ("zero1", "zero2"):
        gathered = forward  # once per step, after it
    ranks = nodes if technique == "hybrid" else nodes * per_node
    return (gathered + reduced) * parameters * (ranks - 1) / ranks


HOST_ADAM_BYTES = 28
"""What Adam reads and writes per parameter in the host's memory: 2 + 12, and as much again."""


class Offload(NamedTuple):
    """What offloading costs one rank per step, in bytes."""

    freed: float  # of GPU memory
    down: float  # from the GPU to the host
    up: float  # from the host to the GPU
    disk: float  # read from the disk, and as many written


def offloaded(parameters: int, n: int, disk: bool = False) -> Offload:
    """Adam in mixed precision on the host: gradients of 2 bytes go down, new parameters of 2 bytes come up.

    ZeRO-Offload (Ren et al. 2021) with states that n ranks share. The 12 bytes of master copy and moments leave the
    GPU. Gradients stay on the GPU until they are summed; the paper keeps them on the host as well, and frees 14 bytes.
    With `disk` the 12 do not fit into the host's memory either, and are read and written each step (ZeRO-Infinity).
    """
    _check("zero3", n)
    share = parameters / n
    return Offload(12 * share, 2 * share, 2 * share, 12 * share if disk else 0.0)


def _check(technique: str, n: int) -> None:
    if technique not in TECHNIQUES:
        raise ValueError(f"technique {technique!r}: expected one of {', '.join(TECHNIQUES)}")
    if n < 1:
        raise ValueError(f"n={n}: expected at least 1 rank")
