"""What data parallelism sends and holds, in closed form; the tests hold each against a recorded trace.

Psi is the number of trained parameters, n the number of ranks (the paper's N_d). Sources: Rajbhandari et al. 2020,
"ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5 and figure 1 (memory), section 7
(communication); Patarasuk & Yuan 2009 (what a ring sends).

Bytes are those that one rank sends, with built-in collectives counted as rings. ZeRO's section 7 counts elements moved,
without the factor (n-1)/n. For stage 1 it takes the gradients to be reduce-scattered. Here stage 1 gets averaged
gradients, from an all-reduce as in DDP, and so sends 3 where the paper has 2. The flags by which ranks agree that
nobody has a reason to stop are left out: 4 bytes in each step of Zero1 and Zero2, and in each backward pass of Zero2
and Zero3 that sends gradients.

The Psi to put in is padded. Zero1 and Zero2 pad each flat vector to a multiple of n elements (`padded`): a vector for
each dtype, or a bucket. Zero3 pads each parameter to a multiple of n rows (`units.padded`).
"""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

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
    """Bytes that each rank sends in a step: DDP 2 (n-1)/n Psi, Zero1 3, Zero2 2, Zero3 3 (times `item_bytes`).

    `parameters` is Psi, padded; `kept` of them Zero3 gathers once for both passes: those of its root unit, padded.
    """
    _check(technique, n)
    each = moves(technique, microbatches, no_sync)
    elements = (each.gathers + each.scatters) * parameters - kept * each.gathers // 2
    return elements * (n - 1) * item_bytes // n


def held_bytes(technique: str, parameters: int, n: int, mixed: bool = False) -> float:
    """Bytes of model states per rank under Adam: parameters, gradients, moments and, with `mixed`, master copies.

    In float32: 4 parameter + 4 gradient + 8 moments. With `mixed`: 2 + 2 in 16 bits, and 12 of master copy and moments
    in float32. Stage 1 shards what the optimizer holds, stage 2 the gradients too, stage 3 the parameters too.
    Left out: activations, buckets and unsharded units under way, padding, and Adam's step count (4 bytes a tensor).
    """
    _check(technique, n)
    weight, gradient, optimizer = (2, 2, 12) if mixed else (4, 4, 8)
    stage = TECHNIQUES.index(technique)
    shared = sum(size for size, since in ((optimizer, 1), (gradient, 2), (weight, 3)) if stage >= since)
    return parameters * (weight + gradient + optimizer - shared + shared / n)


def _check(technique: str, n: int) -> None:
    if technique not in TECHNIQUES:
        raise ValueError(f"technique {technique!r}: expected one of {', '.join(TECHNIQUES)}")
    if n < 1:
        raise ValueError(f"n={n}: expected at least 1 rank")
