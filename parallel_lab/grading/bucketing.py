"""Graders for buckets that are chosen for a link, judged by DDP's plan and the simulator, without running a model.

An answer is a function of the layers' bytes and seconds of backward, of the ranks and the link, that returns buckets of
layers in the order of sending. A driver calls it for several (`drivers.call_each`), and the kernel looks at what it
returned. `in_buckets_once` is the first grader of each test: the others read buckets that a plan can be made of.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import NamedTuple

from parallel_lab.data_parallel import ddp
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.network import AlphaBeta
from parallel_lab.simulate import simulate
from parallel_lab.trace.units import format_bytes, format_seconds

Buckets = list[list[int]]
Mistake = Callable[["Problem", Buckets], bool]  # whether these buckets are cut in a usual wrong way


class Problem(NamedTuple):
    """What one call is given: of each layer, the first of the model first, its gradient's bytes and its backward."""

    sizes: list[int]
    backward_s: list[float]
    n: int
    latency_s: float
    bytes_per_s: float

    def step_s(self, buckets: Buckets) -> float:
        """From the beginning of backward to the last mean, as DDP sends these buckets, simulated."""
        done_s = dict(zip(reversed(range(len(self.sizes))), accumulate(reversed(self.backward_s)), strict=True))
        full_s = [0.0, *accumulate((max(done_s[layer] for layer in bucket) for bucket in buckets), max)]
        seconds = {"F": 0.0, "B": [end - start for start, end in pairwise(full_s)], "update": 0.0}
        sizes = [sum(self.sizes[layer] for layer in bucket) for bucket in buckets]
        cost = AlphaBeta(self.latency_s, self.bytes_per_s, sizes, seconds, ranks=self.n)
        return simulate(ddp.plan(1, len(buckets)), cost).duration_s  # every rank does the same

    def fastest(self) -> Buckets:
        """The buckets with the shortest step, of all ways to cut.

        The best way to send the layers from the last to number i ends with some last bucket, and what is before it was
        sent in the best way as well. So each i needs a look at each beginning of that last bucket.
        """
        latency_s = 2 * (self.n - 1) * self.latency_s
        factor = 2 * (self.n - 1) / self.n / self.bytes_per_s
        order = list(reversed(range(len(self.sizes))))
        done_s = list(accumulate(self.backward_s[layer] for layer in order))
        sent = [0, *accumulate(self.sizes[layer] for layer in order)]
        best: list[tuple[float, list[int]]] = [(0.0, [])]  # of the first so many layers: the end, and the cuts
        for stop in range(1, len(order) + 1):
            ends = []
            for start in range(stop):
                begins_s = max(best[start][0], done_s[stop - 1])
                ends.append((begins_s + latency_s + factor * (sent[stop] - sent[start]), [*best[start][1], start]))
            best.append(min(ends))
        return [order[start:stop] for start, stop in pairwise([*best[-1][1], len(order)])]

    def __str__(self) -> str:
        link = f"{format_bytes(self.bytes_per_s)}/s and {format_seconds(self.latency_s)}"
        return f"{len(self.sizes)} layers of {format_bytes(sum(self.sizes))}, {self.n} ranks, a link of {link}"


@grader
def in_buckets_once(outcome: Outcome, order: str) -> None:
    """Each layer is in one bucket, and gradients that come earlier are in earlier buckets."""
    for problem, buckets in _answers(outcome):
        if type(buckets) is not list or not all(type(one) is list and one for one in buckets):
            seen = f"{problem}: expected a list of buckets, each a list of layers, and got {name(buckets)}"
            raise Wrong(seen, "A bucket without a layer carries nothing.")
        found = Counter(layer for bucket in buckets for layer in bucket)
        for layer in range(len(problem.sizes)):
            if found[layer] != 1:
                raise Wrong(f"{problem}: layer {layer} is in {found[layer]} buckets, expected one", ORPHAN)
        if strange := next((layer for layer in found if layer not in range(len(problem.sizes))), None):
            raise Wrong(f"{problem}: there is no layer {strange}")
        for number, (one, other) in enumerate(pairwise(buckets)):
            if min(one) < max(other):
                seen = f"{problem}: bucket {number} has layer {min(one)} and bucket {number + 1} layer {max(other)}"
                raise Wrong(f"{seen}, whose gradient comes earlier", order)


MIB_25, NEARLY = 25 * 2**20, 1 + 1e-9
ORPHAN = "A gradient in no bucket is never averaged: what becomes of a bucket that is not full when the layers end?"


@grader
def is_fast(outcome: Outcome, most: float, mistakes: Mapping[str, Mistake], advice: str) -> None:
    """The step takes at most `most` times the shortest; `mistakes` tell usual cuts, by the advice for who has them."""
    for problem, buckets in _answers(outcome):
        took_s, right = problem.step_s(buckets), problem.fastest()
        right_s = problem.step_s(right)
        if took_s > most * right_s:
            known = [said for said, has in mistakes.items() if has(problem, buckets)]
            seen = f"{problem}: in the simulator, a step with {_count(buckets)} takes {format_seconds(took_s)}"
            best = f"the best cut has {_count(right)} and takes {format_seconds(right_s)}"
            raise Wrong(f"{seen}, {took_s / right_s:.3g} times the shortest: {best}", known[0] if known else advice)


def _count(buckets: Buckets) -> str:
    return f"{len(buckets)} bucket{'s' * (len(buckets) > 1)}"


def one_bucket(problem: Problem, buckets: Buckets) -> bool:
    """All layers at once."""
    return len(buckets) == 1


def one_each(problem: Problem, buckets: Buckets) -> bool:
    """A bucket for each layer."""
    return len(buckets) == len(problem.sizes)


def of_one_size(problem: Problem, buckets: Buckets) -> bool:
    """Closed once they hold PyTorch's 25 MiB, whatever the link."""
    sizes = [[problem.sizes[layer] for layer in bucket] for bucket in buckets]
    return all(sum(each) >= MIB_25 for each in sizes[:-1]) and all(sum(each[:-1]) < MIB_25 for each in sizes)


def of_one_latency(problem: Problem, buckets: Buckets) -> bool:
    """The shortest step, if an all-reduce cost one latency."""
    other = problem._replace(latency_s=problem.latency_s / max(1, 2 * (problem.n - 1)))
    return other.step_s(buckets) <= NEARLY * other.step_s(other.fastest())


def _answers(outcome: Outcome) -> Iterator[tuple[Problem, Buckets]]:
    """For each call: what it was given, and what was returned."""
    for call, buckets in zip(outcome.inputs[0][0], outcome.results[0][0], strict=True):
        yield Problem(*call), buckets
