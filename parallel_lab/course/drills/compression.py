"""Drills of chapter 13: bytes of quantized weights, what top-k and PowerSGD send, and the error of a grid."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem


@problem("comp-stored", chapter="13")
def comp_stored(dice: Random) -> Drawn:
    """The bytes of weights that are quantized in groups."""
    billions, bits = dice.choice((7, 8, 13, 32, 70)), dice.choice((3, 4, 8))
    group, symmetric = dice.choice((32, 64, 128)), dice.choice((True, False))
    beside = 16 if symmetric else 32
    each = bits + beside / group
    zero = "no zero points" if symmetric else "a zero point of 16 bits for each group"
    return Drawn(
        question=f"{billions} billion weights are quantized to {bits} bits in groups of {group}, with a scale of 16"
        f" bits for each group and {zero}. How many GB are stored? (Every weight counts; embeddings too.)",
        answer=billions * each / 8,
        unit="GB",
        steps=(
            f"A group adds {beside} bits to {group} weights: {beside}/{group} = {beside / group:g} bits per weight.",
            f"{bits} + {beside / group:g} = {each:g} bits per weight, an eighth of that in bytes.",
            f"{billions}e9 · {each:g}/8 = {billions * each / 8:,.4g} GB; 16-bit weights are {2 * billions} GB.",
        ),
        wrong=(
            (billions * bits / 8, "You left out what each group adds."),
            (billions * (bits + 16 / group) / 8, "You left out the zero points."),
            (billions * (bits + beside) / 8, "You gave each weight a scale. A whole group shares one."),
            (billions * each, "That is in Gbit."),
            (2 * billions, "That is in 16 bits."),
        ),
    )


@problem("comp-top-k", chapter="13")
def comp_top_k(dice: Random) -> Drawn:
    """What top-k sends against a ring all-reduce."""
    n, per_cent = dice.choice((2, 4, 8, 16, 64, 256)), dice.choice((0.1, 0.5, 1, 2, 5, 10, 25))
    ratio = n * per_cent / 100
    won = "less than" if ratio < 1 else "as much as" if ratio == 1 else "more than"
    return Drawn(
        question=f"Data parallel over {n} ranks, float32 gradients. Each rank keeps the largest {per_cent:g} % and"
        " gathers those of all (4 bytes of value, 4 of index each). How many times as much does a rank send as by a"
        " dense ring all-reduce?",
        answer=ratio,
        steps=(
            f"All-gather: the own 8 ρ N bytes go to n - 1 = {n - 1} others, in a ring one hop each.",
            "All-reduce by a ring: 2 (n - 1)/n · 4 N bytes.",
            f"8 ρ (n - 1) / (8 (n - 1)/n) = ρ n = {per_cent / 100:g} · {n} = {ratio:g}: {won} the dense one.",
        ),
        wrong=(
            (per_cent / 100, "You compared the numbers that are kept. An all-gather grows with the ranks."),
            (ratio / 2, "You left out the indices."),
            (
                2 * per_cent / 100,
                "You compared one rank's message with the gradient. An all-gather grows with the ranks.",
            ),
            (
                per_cent / 100 * (n - 1),
                "You let the all-reduce send 2S. In each half of the ring a rank sends all pieces but one.",
            ),
            (2 * ratio, "You let the all-reduce send S. It sends nearly twice that."),
            (1 / ratio, "You divided the other way around."),
        ),
    )


@problem("comp-rank", chapter="13")
def comp_rank(dice: Random) -> Drawn:
    """How many times fewer numbers PowerSGD sends for a matrix."""
    rows, columns = dice.choice(((8192, 8192), (28_672, 8192), (4096, 4096), (14_336, 4096), (1024, 4096)))
    rank = dice.choice((1, 2, 4, 8, 32))
    ratio = rows * columns / (rank * (rows + columns))
    return Drawn(
        question=f"PowerSGD of rank {rank} for the gradient of a matrix of {rows:,} by {columns:,}. How many times"
        " fewer numbers are all-reduced than without it?",
        answer=ratio,
        steps=(
            f"Two factors, of {rows:,} by {rank} and {columns:,} by {rank}, are all-reduced one after the other:"
            f" {rank} · ({rows:,} + {columns:,}) = {rank * (rows + columns):,} numbers.",
            f"The matrix has {rows:,} · {columns:,} = {rows * columns:,}.",
            f"{rows * columns:,} / {rank * (rows + columns):,} = {ratio:,.4g}.",
        ),
        wrong=(
            (columns / rank, "You counted one of the two factors."),
            (rows / rank, "You counted one of the two factors."),
            (rows * columns / (rows + columns), "That is rank 1."),
            (1 / ratio, "You divided the other way around."),
        ),
    )


@problem("comp-step", chapter="13")
def comp_step(dice: Random) -> Drawn:
    """The error of a uniform grid."""
    bits, largest = dice.choice((3, 4, 6, 8)), dice.choice((0.2, 0.5, 1.0, 2.0))
    step = largest / (2 ** (bits - 1) - 1)
    error = step / 12**0.5
    return Drawn(
        question=f"Weights between -{largest:g} and {largest:g} are rounded to a symmetric grid of {bits} bits, from"
        f" -{2 ** (bits - 1) - 1} to {2 ** (bits - 1) - 1} steps. How large is the root mean squared error, times"
        " 1,000, if weights lie anywhere between grid points with equal probability?",
        answer=1e3 * error,
        steps=(
            f"Step Δ = {largest:g} / {2 ** (bits - 1) - 1} = {step:.4g}.",
            "An error is uniform between -Δ/2 and Δ/2: its mean square is Δ²/12.",
            "A bit more halves it (nearly); one weight ten times as large as the others makes it ten times as large for"
            " all that share its scale.",
            f"1,000 Δ/√12 = {1e3 * error:.4g}.",
        ),
        wrong=(
            (1e3 * step, "That is the step."),
            (500 * step, "That is the largest error. The question asks for the root of the mean square."),
            (
                1e3 * step / 3**0.5,
                "You let errors go up to a whole step. Rounding to nearest leaves at most half of one.",
            ),
            (1e3 * step**2 / 12, "That is the mean square. Take the root."),
            (1e3 * largest / 2 ** (bits - 1) / 12**0.5, "You took one grid point too many on a side."),
            (1e3 * step / 2 / 12**0.5, "You gave the grid one bit too many."),
        ),
    )
