"""What a training costs: GPU-days, bytes of state, bytes of activations, time between failures."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.model import budget


@problem("gpu-days", chapter="01")
def gpu_days(dice: Random) -> Drawn:
    """How many days a training takes."""
    billions, trillions = dice.choice((3, 7, 8, 13, 34, 70, 405)), dice.choice((1, 2, 5, 10, 15))
    gpus, mfu = dice.choice((256, 512, 1024, 2048, 8192)), dice.choice((0.35, 0.4, 0.45, 0.5))
    peak = 989e12
    flops = budget.training_flops(billions * 1e9, trillions * 1e12)
    days = budget.training_days(flops, gpus, peak, mfu)
    per_s = gpus * peak * mfu
    return Drawn(
        question=f"{billions} billion parameters, {trillions} trillion tokens, {gpus:,} H100s (989 TFLOP/s) at"
        f" {mfu:.0%} MFU. How many days does the training take?",
        answer=days,
        unit="days",
        tolerance=0.05,
        steps=(
            f"6 N D = 6 · {billions}e9 · {trillions}e12 = {flops:.3g} FLOPs.",
            f"All GPUs together reach {gpus:,} · 989e12 · {mfu:g} = {per_s:.3g} FLOP/s.",
            f"{flops:.3g} / {per_s:.3g} = {flops / per_s:.3g} s; with 86,400 s per day that is {days:.4g} days.",
        ),
        wrong=(
            (days / 3, "You counted 2ND, the forward pass. The backward pass computes two more products."),
            (days * 8 / 6, "You counted 8ND, with a second forward pass. Nothing is recomputed here."),
            (days * mfu, "You divided by the peak. The GPUs reach only the MFU's share of it."),
            (days * 24, "That is hours."),
        ),
    )


@problem("state-bytes", chapter="01")
def state_bytes(dice: Random) -> Drawn:
    """The bytes of state of a model in training."""
    billions, ranks = dice.choice((1.5, 7, 8, 13, 34, 70, 180, 405)), dice.choice((1, 8, 64, 256, 512))
    name, layout = dice.choice(
        (
            ("16-bit gradients only", "mixed"),
            ("float32 gradients only", "main gradients"),
            ("16-bit gradients and a float32 copy of them", "copied gradients"),
        )
    )
    weight, gradient, optimizer = budget.LAYOUTS[layout]
    each = weight + gradient + optimizer
    whole = each * billions
    cut = f", all of it cut over {ranks} ranks" if ranks > 1 else ""
    ask = "How many GB are held per rank?" if ranks > 1 else "How many GB are held?"
    last = f" / {ranks} = {whole / ranks:,.4g} GB" if ranks > 1 else f" = {whole:,.4g} GB"
    return Drawn(
        question=f"{billions:g} billion parameters, Adam in mixed precision, {name}: weights, gradients and optimizer"
        f" state{cut}. {ask}",
        answer=whole / ranks,
        unit="GB",
        steps=(
            f"Per parameter: weight {weight}, gradient {gradient}, optimizer {optimizer} (in float32: the weight,"
            f" mean, square{', the gradient' * (optimizer == 16)}): {each} bytes.",
            f"{each} · {billions:g}e9 bytes are {whole:,.4g} GB.",
            f"{whole:,.4g} GB{last}.",
        ),
        wrong=(
            (whole, "That is the state of the whole model. It is cut over the ranks."),
            (16 * billions / ranks, "That is 2 + 2 + 12 bytes. Look again at which gradients are kept."),
            (2 * billions / ranks, "Those are the 16-bit weights alone."),
            (12 * billions / ranks, "That is Adam in float32 alone, without what is kept in 16 bits."),
            (4 * billions / ranks, "You left out what Adam keeps: a float32 copy of the weights and two moments."),
        ),
    )


@problem("activation-bytes", chapter="01")
def activation_bytes(dice: Random) -> Drawn:
    """The activations of one sequence, kept or recomputed."""
    width, layers = dice.choice(((4096, 32), (5120, 40), (8192, 80), (12_288, 96)))
    seq, recompute = dice.choice((2048, 4096, 8192)), dice.choice((True, False))
    factor, how = (2, "full recomputation") if recompute else (34, "fused attention and no recomputation")
    layer = budget.layer_activation_bytes(width, 1, seq, 1, "full" if recompute else "selective")
    return Drawn(
        question=f"A model has {layers} layers of width {width:,}. How many GB of activations does one sequence of"
        f" {seq:,} tokens keep in 16 bits, with {how}? (Layers only, by the count of Korthikanti et al.)",
        answer=layers * layer / 1e9,
        unit="GB",
        tolerance=0.05,
        steps=(
            f"Per layer {factor} · s · b · h bytes: {factor} · {seq:,} · 1 · {width:,} = {layer / 1e6:,.4g} MB.",
            f"{layers} layers: {layers} · {layer / 1e6:,.4g} MB = {layers * layer / 1e9:.4g} GB.",
        ),
        wrong=(
            (
                layers * layer / 1e9 * (17 if recompute else 1 / 17),
                "You took the other case: look at whether layers are recomputed.",
            ),
            (layer / 1e9, "That is one layer."),
            (2 * layers * layer / 1e9, "You multiplied by 2 bytes once more. The formula counts bytes already."),
        ),
    )


@problem("job-mtbf", chapter="01")
def job_mtbf(dice: Random) -> Drawn:
    """How often a job should save."""
    gpus, years = dice.choice((512, 1024, 2048, 4096, 8192, 16_384)), dice.choice((4, 5, 6, 8))
    save_s = dice.choice((20, 30, 60, 120, 300))
    mtbf_s = years * 8766 * 3600 / gpus
    minutes = budget.save_interval_s(save_s, mtbf_s) / 60
    return Drawn(
        question=f"One GPU with its share of host and network fails once in {years} years. A synchronous job has"
        f" {gpus:,} GPUs, and a checkpoint takes {save_s} s. How many minutes apart should checkpoints be?",
        answer=minutes,
        unit="min",
        tolerance=0.03,
        steps=(
            f"The job stops when any GPU does: M = {years} · 8,766 h / {gpus:,} = {mtbf_s / 3600:.4g} h"
            f" = {mtbf_s:,.5g} s.",
            f"Young: sqrt(2 · {save_s} s · {mtbf_s:,.5g} s) = {60 * minutes:,.4g} s.",
            f"That is {minutes:.4g} min.",
        ),
        wrong=(
            (minutes / 2**0.5, "You left out the 2 under Young's root."),
            (minutes * gpus**0.5, "You took the failures of one GPU. The job stops when any of its GPUs fails."),
            (mtbf_s / 60, "That is the time between failures, not that between checkpoints."),
        ),
    )
