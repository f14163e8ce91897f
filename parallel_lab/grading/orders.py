"""The task of chapter 16 on the order of samples: what all ranks take, step after step, also over restarts.

As in `drivers`, a driver gives learner code what it works on, and observes. No rank sends anything: one process asks
for the shares of all of them. Ranks import this module.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import torch

from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case

WORLDS = 1, 2, 3, 4
STATE_BYTES = 200
EPOCHS = 3


def sizes(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """How many samples there are, the global batch, which does not divide them, and a seed."""
    dice = random.Random(generator.initial_seed())
    batch = dice.choice((5, 6, 7, 9))
    return batch * dice.randint(4, 6) + dice.randint(1, batch - 1), batch, dice.randrange(1000)


def observe(fn: Callable, case: Case, samples: int, batch: int, seed: int) -> dict:
    """What `fn(samples, batch, seed, rank, ranks, state)` yields in a run of some steps, for each part of the run.

    A part is (ranks, steps); all parts but the first begin with the state that rank 0 had at the end of the one before.
    """
    steps = -(-samples * EPOCHS // batch)
    runs = {f"{ranks} ranks": [(ranks, steps)] for ranks in WORLDS} if case["look"] == "worlds" else {}
    if case["look"] == "worlds":
        runs["another seed"] = [(1, steps)]
    else:
        third = max(2, steps // 3)
        runs = {"restarts": [(4, 2), (3, third), (2, third), (4, third)]}
    other = {"another seed": seed + 1}
    return {
        name: _run(fn, samples, batch, other.get(name, seed), parts) | {"parts": [list(part) for part in parts]}
        for name, parts in runs.items()
    }


def _run(fn: Callable, samples: int, batch: int, seed: int, parts: list[tuple[int, int]]) -> dict:
    """The shares of each step, rank by rank, and the states at the end of each part, as JSON."""
    shares, states, state = [], [], None
    for ranks, steps in parts:
        taken = [_taken(fn(samples, batch, seed, rank, ranks, state), steps) for rank in range(ranks)]
        for step in range(steps):
            shares.append([[int(index) for index in taken[rank][step][0]] for rank in range(ranks)])
        texts = [json.dumps(rows[-1][1]) for rows in taken]
        states.append(texts)
        state = json.loads(texts[0])
    return {"shares": shares, "states": states}


def _taken(answer: Any, steps: int) -> list:
    """What a rank's generator yields in so many steps.

    Raises:
        TypeError: it is no generator.
        ValueError: it ends before.
    """
    if not isinstance(answer, Iterator):
        raise TypeError(f"the call returned {type(answer).__name__}: yield (indices, state), once for each step")
    rows = list(islice(answer, steps))
    if len(rows) < steps:
        raise ValueError(f"it ended after {len(rows)} of {steps} steps: epoch follows epoch, without an end")
    return rows


def _sequence(run: dict[str, Any], samples: int) -> list[int]:
    """What was trained on, step after step; where a step ends an epoch, what was missing of it comes first."""
    taken: list[int] = []
    for shares in run["shares"]:
        batch = list(chain.from_iterable(shares))
        seen = set(taken[len(taken) // samples * samples :])
        if len(seen) + len(batch) > samples:
            missing = [index for index in dict.fromkeys(batch) if index not in seen]
            for index in missing:
                batch.remove(index)
            batch = missing + batch
        taken += batch
    return taken


def _once(outcome: Outcome, name: str, run: dict[str, Any], advice: dict[str, str]) -> None:
    samples, batch, _ = outcome.inputs[0]
    where = f"{outcome.at}: {name}, {samples} samples in batches of {batch}"
    for step, shares in enumerate(run["shares"]):
        counts = [len(share) for share in shares]
        if sum(counts) != batch or max(counts) - min(counts) > 1:
            raise Wrong(f"{where}: in step {step} the ranks took {counts} samples", advice["batch"])
    taken = _sequence(run, samples)
    for epoch in range(len(taken) // samples):
        seen = Counter(taken[epoch * samples :][:samples])
        twice = sorted(index for index, count in seen.items() if count > 1)
        never = sorted(set(range(samples)) - set(seen))
        if twice or never:
            text = f"{len(twice)} samples came twice or more, as {twice[:3]}, {len(never)} not at all, as {never[:3]}"
            raise Wrong(f"{where}: in epoch {epoch} {text}", advice["once"])


@grader
def once(outcome: Outcome, advice: dict[str, str]) -> None:
    """Each `samples` in a row are all samples; every step takes the global batch in even shares."""
    for name, run in outcome.results[0].items():
        _once(outcome, name, run, advice)


@grader
def shuffled(outcome: Outcome, again: str, alike: str) -> None:
    """Epochs and seeds have other orders; the batches are the same sets for any number of ranks."""
    runs = outcome.results[0]
    samples = outcome.inputs[0][0]
    one = _sequence(runs["1 ranks"], samples)
    for name, other in (
        ("epochs 0 and 1", one[samples : 2 * samples]),
        ("two seeds", _sequence(runs["another seed"], samples)[:samples]),
    ):
        if one[:samples] == other or one[:samples] == sorted(one[:samples]):
            raise Wrong(f"{outcome.at}: {name} have the same order, or none", again)
    for ranks in WORLDS[1:]:
        for step, (mine, first) in enumerate(
            zip(runs[f"{ranks} ranks"]["shares"], runs["1 ranks"]["shares"], strict=True)
        ):
            if sorted(chain.from_iterable(mine)) != sorted(first[0]):
                raise Wrong(f"{outcome.at}: batch {step} at {ranks} ranks has other samples than at 1 rank", alike)


@grader
def one_small_state(outcome: Outcome, alike: str, small: str) -> None:
    """All ranks have the same state, and it does not grow."""
    for part, texts in enumerate(outcome.results[0]["restarts"]["states"]):
        if len(set(texts)) > 1:
            seen = f"{outcome.at}: at the end of part {part}, rank 0 has the state {texts[0][:60]}"
            other = next(rank for rank, text in enumerate(texts) if text != texts[0])
            raise Wrong(f"{seen}, and rank {other} {texts[other][:60]}", alike)
        if len(texts[0]) > STATE_BYTES:
            raise Wrong(f"{outcome.at}: the state takes {len(texts[0])} bytes of JSON, {STATE_BYTES} are plenty", small)
