"""Drills of chapter 11: groups of a mesh, bytes by axis, memory per GPU, and a norm over all axes."""

from math import prod, sqrt
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.data_parallel.formulas import held_bytes
from parallel_lab.tensor_parallel.formulas import block_bytes


@problem("hybrid-groups", chapter="11")
def hybrid_groups(dice: Random) -> Drawn:
    """The last rank of the group that a rank has along an axis."""
    sizes = {"pp": dice.choice((2, 4)), "dp": dice.choice((2, 4)), "cp": dice.choice((2, 4)), "tp": dice.choice((2, 8))}
    rank = dice.randrange(1, prod(sizes.values()))
    axis = dice.choice(("pp", "dp", "cp"))
    inner = prod(list(sizes.values())[list(sizes).index(axis) + 1 :])
    place = rank // inner % sizes[axis]
    last = rank + (sizes[axis] - 1 - place) * inner
    outer = prod(list(sizes.values())[: list(sizes).index(axis)])  # the stride if the first axis were innermost
    outer_last = rank + (sizes[axis] - 1 - rank // outer % sizes[axis]) * outer
    shape = " x ".join(f"{name} {size}" for name, size in sizes.items())
    return Drawn(
        question=f"A mesh of {shape}, the first axis outermost, ranks numbered in this order. Which is the highest"
        f" number in the {axis} group of rank {rank}?",
        answer=last,
        tolerance=1e-6,
        steps=(
            f"Neighbors along {axis} are as far apart as the axes inside it have ranks: {inner}.",
            f"Rank {rank} has place {rank} // {inner} mod {sizes[axis]} = {place} along {axis}.",
            f"The last has place {sizes[axis] - 1}: {rank} + {sizes[axis] - 1 - place} · {inner} = {last}.",
        ),
        wrong=(
            (rank - place * inner, "That is the lowest number of the group."),
            (rank + (sizes[axis] - 1) * inner, "You started at the rank itself. It may not be the first of its group."),
            (outer_last, "You took the first axis as innermost. It is outermost: its neighbors are farthest apart."),
            (
                rank // sizes[axis] * sizes[axis] + sizes[axis] - 1,
                "You took neighboring numbers. Those are a group of the last axis only.",
            ),
        ),
    )


@problem("hybrid-bytes", chapter="11")
def hybrid_bytes(dice: Random) -> Drawn:
    """The bytes that a GPU sends along one axis in a step."""
    layers, width, seq, pp, tp = 80, 8192, 8192, dice.choice((4, 8, 16)), dice.choice((2, 4, 8))
    parameters, dp, m = dice.choice((65e9, 70e9)), dice.choice((16, 32, 64)), dice.choice((8, 16, 32))
    activation = 2 * seq * width
    tensor = m * layers / pp * sum(block_bytes(activation, tp))
    data = (dp - 1) / dp * parameters / (pp * tp) * (4 + 2)
    pipeline = 2 * m * activation / tp
    axis, sent, rule = dice.choice(
        (
            ("tp", tensor, f"8 (n - 1)/n S per block, {layers // pp} blocks, {m} microbatches"),
            ("dp", data, f"(n - 1)/n of {parameters / 1e9:g}e9/{pp * tp} parameters, 4 bytes reduced and 2 gathered"),
            ("pp", pipeline, f"S/tp forward and S/tp backward, {m} microbatches"),
        )
    )
    return Drawn(
        question=f"{parameters / 1e9:g} billion parameters, {layers} blocks, h = {width:,}, on pp {pp} x dp {dp} x tp"
        f" {tp}. {m} microbatches of one sequence of {seq:,} tokens in bfloat16; ZeRO-1 reduce-scatters gradients in"
        " float32 once per step and gathers weights in bfloat16. A boundary between stages carries each number once:"
        f" S/tp per GPU. How many GB does a GPU of a middle stage send along {axis} in a step?",
        answer=sent / 1e9,
        unit="GB",
        steps=(
            f"One activation: S = 2 · {seq:,} · {width:,} = {activation / 1e6:.1f} MB.",
            f"Along {axis}: {rule}.",
            f"tp {tensor / 1e9:.4g} GB, dp {data / 1e9:.4g} GB, pp {pipeline / 1e9:.4g} GB. Along {axis}:"
            f" {sent / 1e9:.4g} GB.",
        ),
        wrong=(
            (tensor / 1e9, "That goes along tp."),
            (data / 1e9, "That goes along dp."),
            (pipeline / 1e9, "That goes along pp."),
            (sent / 2e9, "That is half of it: look at both passes, and at both halves of a ring."),
            (sent / m / 1e9, "That is one microbatch."),
            (sent * tp / 1e9, "Look at tp again: it cuts the parameters, and what a boundary carries."),
            (sent * pp / 1e9, "Look at pp again: a GPU has one stage."),
        ),
    )


@problem("hybrid-memory", chapter="11")
def hybrid_memory(dice: Random) -> Drawn:
    """The memory that model states take on a GPU of a layout."""
    billions, pp = dice.choice(((70, 2), (70, 4), (175, 8), (405, 16)))
    tp, dp, cp = 8, dice.choice((8, 16, 64)), dice.choice((1, 2))
    share = billions / (pp * tp)
    held = share * held_bytes("zero1", 1, dp * cp, layout="main gradients")
    return Drawn(
        question=f"{billions} billion parameters on pp {pp} x dp {dp} x cp {cp} x tp {tp}, ZeRO-1 over dp and cp:"
        " weights of 2 bytes and gradients of 4 are whole, 12 bytes of master copy and moments are sharded. How many"
        " GB of these states does a GPU hold? All stages are taken to be equal.",
        answer=held,
        unit="GB",
        steps=(
            f"pp and tp cut the parameters: {billions}e9 / ({pp} · {tp}) = {share:.4g}e9 per GPU.",
            f"dp and cp copy them, and ZeRO-1 shards 12 bytes over {dp} · {cp} = {dp * cp} ranks.",
            f"{share:.4g}e9 · (2 + 4 + 12/{dp * cp}) bytes = {held:.4g} GB.",
        ),
        wrong=(
            (share * 18, "That is without ZeRO: the master copy and the moments are sharded."),
            (
                share * (6 + 12 / dp),
                "You sharded over dp alone. Ranks of cp hold the same weights, so they share as well.",
            ),
            (share * 18 / (dp * cp), "You sharded everything. ZeRO-1 shards the optimizer's state only."),
            (held * tp, "You left out tp: it cuts the parameters."),
            (held * pp, "You left out pp: a GPU has one stage."),
        ),
    )


@problem("hybrid-norm", chapter="11")
def hybrid_norm(dice: Random) -> Drawn:
    """The global norm of the gradients from what each rank of a layout can sum by itself."""
    tp, pp, dp = dice.choice((2, 4, 8)), dice.choice((2, 4)), dice.choice((2, 4))
    cut, copied = dice.choice((4, 9, 12, 16)), dice.choice((2, 3, 5))
    total = pp * (tp * cut + copied)
    return Drawn(
        question=f"pp {pp} x dp {dp} x tp {tp}; gradients are averaged over dp already and whole on each of its ranks."
        f" On each rank the squares of the gradients of parameters that tp cuts add up to {cut}, and those of"
        f" parameters that tp copies (norms) to {copied}. Nothing is tied. What is the norm of the whole gradient?",
        answer=sqrt(total),
        steps=(
            f"Cut along tp: different numbers on its {tp} ranks, so {tp} · {cut} = {tp * cut}.",
            f"Copied along tp: the same numbers, so once: {copied}. Along dp all is copied: once.",
            f"Along pp all is different: {pp} · ({tp * cut} + {copied}) = {total}; the norm is √{total} ="
            f" {sqrt(total):.4g}.",
        ),
        wrong=(
            (sqrt(pp * tp * (cut + copied)), "You counted what tp copies once for each of its ranks."),
            (sqrt(dp * total), "You added up over dp. Its ranks hold the same gradients."),
            (sqrt(cut + copied), "That is one rank."),
            (total, "That is the square of the norm."),
            (sqrt(total / pp), "That is one stage."),
        ),
    )
