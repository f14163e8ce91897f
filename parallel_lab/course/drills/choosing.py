"""Drills of chapter 21: the fewest cuts that fit, the largest tp that pays, more GPUs on a batch, regret, upgrades."""

from math import ceil, log2
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem


@problem("choose-cuts", chapter="21")
def choose_cuts(dice: Random) -> Drawn:
    """The fewest ranks that must share a model for its state to fit."""
    billions, memory = dice.choice((13, 30, 70, 175, 405)), dice.choice((40, 64, 80, 141))
    share, data = dice.choice((50, 60, 70)), dice.choice((16, 32, 64))
    each = 6 + 12 / data
    least = billions * each / (memory * share / 100)
    cuts = 2 ** max(0, ceil(log2(least)))
    return Drawn(
        question=f"{billions} B parameters; weights in 2 bytes, gradients in 4, and 12 bytes of optimizer state that"
        f" ZeRO-1 shards over dp = {data}. State may fill {share} % of {memory} GB. Which is the smallest power of two"
        " for tp times pp?",
        answer=cuts,
        tolerance=0.001,
        steps=(
            f"A parameter takes 2 + 4 + 12/{data} = {each:.4g} bytes on its rank: in all {billions * each:.4g} GB.",
            f"There is room for {share} % of {memory} GB = {memory * share / 100:.4g} GB: at least {least:.3g} ranks.",
            f"The next power of two: tp · pp = {cuts}.",
        ),
        wrong=(
            (
                2 ** max(0, ceil(log2(billions * 18 / (memory * share / 100)))),
                "You did not shard the optimizer's state over dp.",
            ),
            (2 ** max(0, ceil(log2(billions * each / memory))), "You filled the whole GPU with state."),
            (
                2 ** max(0, ceil(log2(billions * 18 / data / (memory * share / 100)))),
                "You sharded weights and gradients, too. ZeRO-1 does not.",
            ),
            (cuts / 2, "Then it does not fit."),
            (least, "It must be a power of two."),
        ),
    )


@problem("choose-tp", chapter="21")
def choose_tp(dice: Random) -> Drawn:
    """The largest tp whose collectives cost no more than one allows."""
    width, link = dice.choice((4096, 6144, 8192, 12288, 16384)), dice.choice((30, 50, 150, 225, 340, 700))
    reached, percent = dice.choice((150, 200, 450, 600)), dice.choice((20, 30, 50))
    one = 2 * reached * 1e12 / (9 * width * link * 1e9)
    most = 1 + percent / 100 / one

    def allowed(each: float) -> int:
        return 2 ** int(log2(1 + percent / 100 / each))

    tp = allowed(one)
    return Drawn(
        question=f"A block of width {width:,} in 2-byte numbers; a GPU reaches {reached} TFLOP/s, its link"
        f" {link} GB/s in a ring. Nothing is hidden. Which is the largest power of two for tp at which the"
        f" collectives take at most {percent} % of the products' time? (Attention left out.)",
        answer=tp,
        tolerance=0.001,
        steps=(
            "Collectives over products: 8 (n-1)/n · 2 s b h / W over 72 s b h² / (n F) = 2 (n-1) F / (9 h W).",
            f"Here (n - 1) · {one:.3g}, so n is at most 1 + {percent / 100}/{one:.3g} = {most:.3g}.",
            f"The largest power of two: tp = {tp}.",
        ),
        wrong=(
            (allowed(one / 2), "You let an all-reduce send S, or counted two of them per block. Look at both."),
            (allowed(3 * one), "You counted the forward products only, and all four all-reduces."),
            (most, "It must be a power of two."),
        ),
    )


@problem("choose-more-gpus", chapter="21")
def choose_more_gpus(dice: Random) -> Drawn:
    """What more GPUs gain when the batch stays, with a pipeline."""
    p, tp, times = dice.choice((4, 8, 16)), dice.choice((2, 4, 8)), dice.choice((2, 4))
    m, b = p * times * dice.choice((1, 2, 3)), dice.choice((1, 2))
    dp = dice.choice((4, 8, 16))
    few = m // times
    gained = (m + p - 1) / (few + p - 1)
    gpus, batch = p * tp * dp, dp * b * m
    return Drawn(
        question=f"{gpus:,} GPUs, tp {tp}, pp {p} with 1F1B, a batch of {batch:,} sequences in microbatches of {b}."
        f" The same layout gets {times} times as many GPUs as data ranks, and the batch stays. How many times as fast"
        " is the step? (Only the bubble counts.)",
        answer=gained,
        steps=(
            f"dp = {dp}, so m = {batch}/({dp} · {b}) = {m} microbatches; afterwards {few}.",
            f"A step lasts m + p - 1 = {m + p - 1} passes, afterwards {few + p - 1}.",
            f"{m + p - 1}/{few + p - 1} = {gained:.3g} times as fast, on {times} times as many GPUs.",
        ),
        wrong=(
            (
                times,
                "You let the step shrink with the GPUs. The bubble grows when each pipeline has fewer microbatches.",
            ),
            (gained / times, "That is how efficient it is compared with before."),
            (1 / gained, "You divided the other way around."),
            (1, "Each pipeline has fewer microbatches, so a step is shorter."),
        ),
    )


@problem("choose-regret", chapter="21")
def choose_regret(dice: Random) -> Drawn:
    """What a wrong prediction costs."""
    layouts = ("tp 8, pp 1", "tp 4, pp 2", "tp 2, pp 4")
    measured = [value / 100 for value in dice.sample(range(900, 1300), 3)]
    order = sorted(range(3), key=measured.__getitem__)
    chosen = order[dice.choice((1, 2))]
    predicted = [round(value * dice.uniform(1.0, 1.06), 2) for value in measured]
    predicted[chosen] = round(min(predicted) * 0.98, 2)
    rows = "; ".join(f"{name}: {p} s and {m} s" for name, p, m in zip(layouts, predicted, measured, strict=True))
    regret = 100 * (measured[chosen] / measured[order[0]] - 1)
    return Drawn(
        question=f"Step times, predicted and measured: {rows}. One takes the layout that is predicted best. By how many"
        " per cent is it slower than the best measured one?",
        answer=regret,
        unit="%",
        steps=(
            f"Predicted best is {layouts[chosen]}, with {predicted[chosen]} s.",
            f"It was measured at {measured[chosen]} s, the best at {measured[order[0]]} s ({layouts[order[0]]}).",
            f"{measured[chosen]}/{measured[order[0]]} - 1 = {regret:.3g} %.",
        ),
        wrong=(
            (
                100 * (measured[chosen] / predicted[chosen] - 1),
                "That is how wrong its prediction was. The question compares two measured layouts.",
            ),
            (100 * (predicted[order[0]] / predicted[chosen] - 1), "You compared predictions."),
            (100 * (measured[chosen] - measured[order[0]]), "That is the difference in hundredths of a second."),
            (
                100 * (1 - measured[order[0]] / measured[chosen]),
                "You divided by the chosen layout. The best measured one is the measure.",
            ),
        ),
    )


@problem("choose-upgrade", chapter="21")
def choose_upgrade(dice: Random) -> Drawn:
    """What a faster network gains."""
    compute, hidden, inside = dice.randint(60, 90) / 10, dice.randint(10, 40) / 10, dice.randint(5, 20) / 10
    exposed, times = dice.randint(5, 25) / 10, dice.choice((2, 4))
    before, after = compute + inside + exposed, compute + inside + exposed / times
    gained = 100 * (before / after - 1)
    return Drawn(
        question=f"A step: {compute} s of products with the bubble, {inside} s of tensor-parallel collectives inside"
        f" the node, {hidden + exposed:.1f} s of messages between nodes, of which {hidden} s are hidden. How many per"
        f" cent more steps per hour does a network between nodes bring that is {times} times as fast? (What is hidden"
        " stays hidden, and the exposed part shrinks with the bandwidth.)",
        answer=gained,
        unit="%",
        steps=(
            f"Exposed are {hidden + exposed:.1f} - {hidden} = {exposed} s: the step takes {before:.3g} s.",
            f"Afterwards {exposed}/{times} = {exposed / times:.3g} s are exposed: {after:.4g} s.",
            f"{before:.4g}/{after:.4g} - 1 = {gained:.3g} %.",
        ),
        wrong=(
            (100 * (1 - after / before), "That is how much shorter a step is. The question asks for steps per hour."),
            (
                100 * (before / (before - (hidden + exposed) * (1 - 1 / times)) - 1),
                "You took all messages. What is hidden gains nothing.",
            ),
            (100 * (before / (before - exposed) - 1), "You let the exposed part vanish. It only shrinks."),
            (100 * (times - 1), "That is the network's gain. Only a part of the step is exposed."),
            (
                100 * (before / (before - (inside + exposed) * (1 - 1 / times)) - 1),
                "You sped up the collectives inside the node, too.",
            ),
        ),
    )
