"""Drills of chapter 12: what an update must have to count, the loss scale after some steps, bytes of float8, Amdahl."""

from math import floor, log2
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem

MANTISSA = {"bfloat16": 7, "float16": 10}


@problem("prec-update", chapter="12")
def prec_update(dice: Random) -> Drawn:
    """The smallest update that changes a weight in 16 bits."""
    name = dice.choice(tuple(MANTISSA))
    bits, weight = MANTISSA[name], dice.choice((0.02, 0.05, 0.3, 0.7, 1.5, 3.0))
    exponent = floor(log2(weight))
    half = 2.0 ** (exponent - bits) / 2
    return Drawn(
        question=f"A weight near {weight:g} is kept in {name}, without a copy in float32. Which update, times a"
        " million, must a step exceed so that rounding to nearest does not lose it?",
        answer=half * 1e6,
        steps=(
            f"{weight:g} lies between 2^{exponent} and 2^{exponent + 1}; {name} has {bits} bits of mantissa.",
            f"Neighbors are 2^({exponent} - {bits}) = {2 * half:.4g} apart.",
            f"Less than half of that rounds back: {half:.4g}, or {half * 1e6:,.4g} millionths.",
        ),
        wrong=(
            (2e6 * half, "That is the distance of neighbors. Rounding to nearest needs less to go up."),
            (1e6 * 2.0 ** (exponent - sum(MANTISSA.values()) + bits) / 2, "That is the other 16-bit format."),
            (
                1e6 * weight * 2.0 ** -(bits + 1),
                "You took a share of the weight. Neighbors are as far apart as at the power of two below it.",
            ),
            (1e6 * half / 2, "You gave the format one bit too many."),
        ),
    )


@problem("prec-scale", chapter="12")
def prec_scale(dice: Random) -> Drawn:
    """The loss scale after some steps and overflows."""
    start, interval = dice.choice((14, 15, 16)), dice.choice((500, 1000, 2000))
    skipped = sorted(dice.sample(range(1, 12), dice.choice((1, 2, 3))))
    steps = dice.choice((3, 4, 5)) * interval + 12
    grown = (steps - skipped[-1]) // interval
    power = start - len(skipped) + grown
    return Drawn(
        question=f"Dynamic loss scaling starts at 2^{start}, halves after an overflow and doubles after {interval:,}"
        f" clean steps in a row. Of {steps:,} steps, numbers {', '.join(map(str, skipped))} overflow. What is the power"
        " of 2 of the scale at the end?",
        answer=power,
        steps=(
            f"{len(skipped)} overflows: 2^{start - len(skipped)}. Each sets the count of clean steps to 0.",
            f"{steps:,} - {skipped[-1]} = {steps - skipped[-1]:,} clean steps follow: {grown} times {interval:,}.",
            f"{start} - {len(skipped)} + {grown} = {power}.",
        ),
        wrong=(
            (start - len(skipped), "You never doubled it."),
            (start + grown, "You did not halve it."),
            (
                start - len(skipped) + grown + 1,
                "You doubled once too often. An overflow sets the count of clean steps to 0.",
            ),
            (start - 2 * len(skipped) + grown, "You took a quarter at each overflow. It halves."),
        ),
    )


@problem("prec-float8", chapter="12")
def prec_float8(dice: Random) -> Drawn:
    """The bytes of a weight in a narrow format with a scale for each block."""
    rows, columns = dice.choice(((4096, 4096), (4096, 14_336), (8192, 28_672), (7168, 2048)))
    name, bits, block, scale = dice.choice(
        (
            ("E4M3 with a float32 scale per 128 x 128", 8, 128 * 128, 4),
            ("E4M3 with a float32 scale per 1 x 128", 8, 128, 4),
            ("MXFP8, blocks of 32 with a scale of one byte", 8, 32, 1),
            ("MXFP4, blocks of 32 with a scale of one byte", 4, 32, 1),
        )
    )
    count = rows * columns
    size = count * bits / 8 + count / block * scale
    return Drawn(
        question=f"A matrix of {rows:,} x {columns:,} is stored in {name}. How many MB, scales included?",
        answer=size / 1e6,
        unit="MB",
        tolerance=0.005,
        steps=(
            f"{count:,} numbers of {bits / 8:g} bytes are {count * bits / 8e6:,.4g} MB.",
            f"One scale of {scale} bytes per {block:,} numbers: {count // block:,} of them,"
            f" {count / block * scale / 1e6:,.4g} MB.",
            f"Together {size / 1e6:,.5g} MB, {size / count:.4g} bytes per number.",
        ),
        wrong=(
            (count * bits / 8e6, "You left out the scales."),
            (count * 2 / 1e6, "That is in 16 bits."),
            ((count + count / block * scale) / 1e6, "You took a byte per number."),
            ((count * bits / 8 + count / block * 4) / 1e6, "You took a scale of 4 bytes."),
        ),
    )


@problem("prec-amdahl", chapter="12")
def prec_amdahl(dice: Random) -> Drawn:
    """How much faster a step gets when its parts gain by different factors."""
    products, memory = dice.choice(((60, 25), (70, 20), (50, 30), (80, 10)))
    factor = dice.choice((2, 4, 8))
    rest = 100 - products - memory
    after = products / factor + memory / 2 + rest
    return Drawn(
        question=f"In float32 {products} % of a step are matrix products, {memory} % are bound by memory bandwidth,"
        f" and {rest} % are launches and data. In bfloat16 products are {factor} times as fast, and bytes halve. How"
        " many times as fast is the step?",
        answer=100 / after,
        steps=(
            f"Products: {products}/{factor} = {products / factor:g}. Bandwidth: {memory}/2 = {memory / 2:g}. The rest"
            f" stays {rest}.",
            f"Together {after:g} of 100.",
            f"100/{after:g} = {100 / after:.3g}.",
        ),
        wrong=(
            (factor, "That is the products' gain. The other parts gain less."),
            (100 / (products / factor + memory + rest), "You left the memory-bound part as it was. Its bytes halve."),
            (
                100 / (products / factor + memory / factor + rest),
                "You let memory gain as much as products. Only its bytes count.",
            ),
            (100 / (products / factor + memory / 2 + rest / 2), "You let the rest gain, too."),
            (after / 100, "You divided the other way around."),
        ),
    )
