"""What defenses cost and what passes them: rules against lies, private training, images read from gradients.

    python benchmarks/defenses.py [--seeds 5]

Handwritten digits, small MLPs; one process plays all ranks. Accuracy is that on 359 test images, as mean +- deviation
over the seeds. A seed draws weights, batches, who has which data, and noise. The learning rate of private training is
the best of three by the same test accuracy and seeds, in every row alike; a real run pays for its tries in epsilon.

Limits: the mean of 9 gradients with 2 lies ends below 0.2, every robust rule above 0.85; where nobody lies and ranks
have few classes, every robust rule ends below the mean; a backdoor goes through Krum; less epsilon never gains
accuracy by more than the spread; canaries in private training give less away than the bound.
"""

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Sequence

import torch

from parallel_lab.model import build
from parallel_lab.model.digits import digit_images
from parallel_lab.systems.security import Privacy, inversion, membership, poisoned_job, private, robust

TRAIN, TEST = digit_images(), digit_images("test")
EPSILONS = (math.inf, 8.0, 4.0, 2.0, 1.0, 0.5)
RATE, STEPS, DELTA, RATES = 0.1, 200, 1e-5, (0.5, 1.0, 2.0)
CANARIES = 60
JOBS: dict[str, tuple[poisoned_job.Job, dict]] = {
    "nobody lies": (poisoned_job.Job(liars=0), {}),
    "2 send -10 times the mean": (poisoned_job.Job(), {"attack": robust.reversed_sign}),
    "2 send NaN": (poisoned_job.Job(), {"attack": robust.not_numbers}),
    "3 send a little less (z from n, f)": (poisoned_job.Job(liars=3, f=3), {"attack": robust.little}),
    "2 hide a backdoor": (poisoned_job.Job(), {"backdoor": 1.0}),
    "4 of 11 hide it in other pixels": (
        poisoned_job.Job(n=11, liars=4, f=4, trigger=poisoned_job.USED),
        {"backdoor": 1.0},
    ),
    "nobody lies, a rank has 1 or 2 classes": (poisoned_job.Job(liars=0, by_class=True), {}),
}


def said(values: Sequence[float]) -> str:
    """Mean and deviation of a list."""
    return f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}"


def rules(seeds: range) -> bool:
    """Prints the accuracy of each job under each rule; whether the limits hold."""
    found: dict[tuple[str, str], list[float]] = {}
    doors: dict[tuple[str, str], list[float]] = {}
    print("| 9 ranks | " + " | ".join(robust.RULES) + " |")
    print("|---" * (1 + len(robust.RULES)) + "|")
    for name, (job, how) in JOBS.items():
        for rule in robust.RULES:
            settings = {"attack": None, **how}
            models = [poisoned_job.train(job, TRAIN, rule, seed=seed, **settings) for seed in seeds]
            found[name, rule] = [poisoned_job.accuracy(model, TEST) for model in models]
            if "backdoor" in how:
                doors[name, rule] = [poisoned_job.taken(model, TEST, job.trigger) for model in models]
        print(f"| {name} | " + " | ".join(said(found[name, rule]) for rule in robust.RULES) + " |")
        if "backdoor" in how:
            print("| *and it works* | " + " | ".join(said(doors[name, rule]) for rule in robust.RULES) + " |")
    names = list(JOBS)
    nobody, few = names[0], names[-1]
    held = [max(found[name, "mean"]) < 0.2 for name in names[1:3]]
    held += [min(found[name, rule]) > 0.85 for name in names[1:3] for rule in list(robust.RULES)[1:]]
    held += [statistics.mean(found[few, rule]) < statistics.mean(found[few, "mean"]) for rule in list(robust.RULES)[1:]]
    return all(held) and min(doors[names[4], "Krum"]) > 0.9 and min(found[nobody, "mean"]) > 0.9


def privately(data: tuple, noise: float, lr: float, seed: int) -> torch.nn.Module:
    """A model of private training; without noise it still samples and clips."""
    settings = Privacy(RATE, noise)
    return private.train(build((64, 32, 10), seed=seed), *data, privacy=settings, steps=STEPS, lr=lr, seed=seed)


def privacy(seeds: range) -> bool:
    """Prints what an epsilon costs in accuracy, and what canaries give away; whether the limits hold."""
    print(
        "\n| epsilon | noise | learning rate | accuracy | advantage on canaries | at most |\n|---|---|---|---|---|---|"
    )
    costs, held = [], True
    for wanted in EPSILONS:
        noise = 0.0 if wanted == math.inf else private.noise_for(wanted, RATE, STEPS, DELTA)
        tried = {lr: [poisoned_job.accuracy(privately(TRAIN, noise, lr, s), TEST) for s in seeds] for lr in RATES}
        lr = max(tried, key=lambda each: statistics.mean(tried[each]))
        planted = [membership.plant(*TRAIN, canaries=CANARIES, seed=seed) for seed in seeds]
        told = [membership.attack(privately(d, noise, lr, s), c) for (d, c), s in zip(planted, seeds, strict=True)]
        bound = 1.0 if wanted == math.inf else private.advantage(wanted, DELTA)
        costs.append(tried[lr])
        print(f"| {wanted:g} | {noise:.2f} | {lr} | {said(tried[lr])} | {said(told)} | {bound:.3f} |")
        held &= statistics.mean(told) < bound + membership.chance(CANARIES)
    chance = membership.chance(CANARIES)
    print(
        f"\nLosses that know nothing have an advantage of {chance:.3f}: the threshold is chosen on the same canaries."
    )
    told = []
    for seed in seeds:
        data, canaries = membership.plant(*TRAIN, canaries=CANARIES, seed=seed)
        told.append(membership.attack(fitted(data, seed), canaries))
    print(f"Plain training for 60 epochs of Adam, no clipping: advantage {said(told)}.")
    pairs = itertools.pairwise(costs)
    falls = [statistics.mean(b) <= statistics.mean(a) + statistics.stdev(a) + statistics.stdev(b) for a, b in pairs]
    return held and all(falls) and min(told) > 0.6


def fitted(data: tuple, seed: int) -> torch.nn.Module:
    """A model trained until it has learned the canaries."""
    model, dice = build((64, 64, 10), seed=seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        for part in torch.randperm(len(data[1]), generator=dice).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(data[0][part]), data[1][part]).backward()
            optimizer.step()
    return model


def images(seeds: range) -> bool:
    """Prints how many images of a batch division reads from its gradient; whether a single one always is."""
    print("\n| batch | read exactly, share |\n|---|---|")
    held = True
    for batch in (1, 2, 4, 8, 16, 64):
        shares = []
        for seed in seeds:
            chosen = torch.randperm(len(TRAIN[1]), generator=torch.Generator().manual_seed(seed))[:batch]
            x, y = TRAIN[0][chosen], TRAIN[1][chosen]
            seen = inversion.gradients(build((64, 32, 10), seed=seed), x, y)
            shares.append(inversion.leak(inversion.by_division(seen[0], seen[1]), x, TRAIN[0]).exact / batch)
        print(f"| {batch} | {said(shares)} |")
        held &= batch > 1 or min(shares) == 1.0
    return held


def main() -> int:
    """Prints the three tables, and returns 0 where the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    held = [table(seeds) for table in (rules, privacy, images)]
    print("\n" + ("all limits hold" if all(held) else f"limits of rules, privacy, images held: {held}"))
    return 0 if all(held) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
