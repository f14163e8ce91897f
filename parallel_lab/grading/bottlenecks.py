"""Traces with a planted bottleneck, as the lab records them: a collective begins on a rank when that rank calls it.

Ranks make these traces themselves and import this module, so it uses no technique. Times are drawn, in whole
microseconds, and so that the planted part takes between a fifth and a half of the step.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from parallel_lab.grading.rank_side import Case
from parallel_lab.plan import RECV, SEND
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK

US = 1e-6
CALL = "call"  # a note: the host's call for a kernel, whose number is the part
LAUNCH_S = 50e-6  # the longest pause that can be launch overhead


def planted(case: Case, rank: int, generator: torch.Generator) -> tuple[Trace]:
    """A trace of the kind that the setting `plant` names."""
    dice = random.Random(generator.initial_seed())
    plant: str = case["plant"]
    if plant == "bubble":
        return (_pipeline(dice.randint(3, 4), dice.randint(4, 5), dice),)
    if plant == "launch":
        return (_tiny_kernels(dice.randint(40, 60), dice),)
    return (_data_parallel(plant, dice.randint(3, 4), dice.randint(3, 5), dice),)


def _data_parallel(plant: str, n: int, buckets: int, dice: random.Random) -> Trace:
    """A batch, a forward, a backward per bucket with its all-reduce beside the next, an update; in microseconds."""
    forward, backward = dice.randint(2800, 3200), 6000 // buckets
    data, reduce, late = dice.randint(60, 90), dice.randint(250, 280), dice.randrange(n)
    if plant == "data":
        data = dice.randint(3000, 5000)
    if plant == "exposed":
        reduce = 6000 // buckets + dice.randint(1200, 1500)
    slower = dice.randint(4000, 6000)  # of the late rank
    loads = [data + slower * (plant == "late loader" and rank == late) for rank in range(n)]
    passes = [forward + slower * (plant == "straggler" and rank == late) for rank in range(n)]
    spans = [_span(rank, "data", 0, loads[rank]) for rank in range(n)]
    spans += [_span(rank, "F", loads[rank], passes[rank]) for rank in range(n)]
    clocks, free = [sum(each) for each in zip(loads, passes, strict=True)], 0
    for bucket in range(buckets):
        for rank in range(n):
            spans.append(_span(rank, "B", clocks[rank], backward, bucket))
            clocks[rank] += backward
        free = max(free, *clocks) + reduce  # it runs when all are there and the one before is over
        for rank in range(n):
            spans.append(_span(rank, "all_reduce", clocks[rank], free - clocks[rank], bucket, lane=SEND))
    spans += [_span(rank, "update", free, 200) for rank in range(n)]
    return Trace(n, tuple(sorted(spans, key=lambda s: (s.rank, s.start_s))))


def _pipeline(p: int, m: int, dice: random.Random) -> Trace:
    """GPipe: all forwards, then all backwards; a receive begins when the rank has nothing else to do."""
    forward, backward, message = dice.randint(900, 1100), dice.randint(1900, 2100), dice.randint(50, 90)
    spans: list[Span] = []
    clocks = [0] * p
    for kind, took, order, phase in (("F", forward, range(p), "forward"), ("B", backward, range(p)[::-1], "backward")):
        for mb in range(m):
            for place, rank in enumerate(order):
                if place:
                    peer, part = order[place - 1], min(rank, order[place - 1])
                    sent = clocks[peer]
                    about: dict[str, Any] = {"part": part, "mb": mb, "phase": phase}
                    spans.append(_span(peer, "send", sent, message, peer=rank, lane=SEND, **about))
                    asked, clocks[rank] = clocks[rank], max(clocks[rank], sent + message)
                    spans.append(_span(rank, "recv", asked, clocks[rank] - asked, peer=peer, lane=RECV, **about))
                spans.append(_span(rank, kind, clocks[rank], took, rank, mb=mb, phase=phase))
                clocks[rank] += took
    return Trace(p, tuple(sorted(spans, key=lambda s: (s.rank, s.start_s))))


def _tiny_kernels(count: int, dice: random.Random) -> Trace:
    """One rank: kernels shorter than the host takes from call to call, and one pause for another reason."""
    spans, host, gpu = [], 0, 0
    for number in range(count):
        host += 80 if number == count // 2 else 0  # the host does something else
        call, took = dice.randint(8, 12), dice.randint(4, 7)
        spans.append(_span(0, CALL, host, call, number, lane=MARK))
        host += call
        gpu = max(gpu, host)
        spans.append(_span(0, "kernel", gpu, took, number))
        gpu += took
    return Trace(1, tuple(spans))


def _span(rank: int, kind: str, start_us: int, took_us: int, part: int = 0, **fields: Any) -> Span:
    return Span(rank, kind, start_us * US, (start_us + took_us) * US, part, **fields)


def with_launches(trace: Trace) -> Trace:
    """`trace` with a span of the kind `launch` for each pause before a kernel whose call had not returned by then."""
    called = {s.part: s.end_s for s in trace.spans if s.kind == CALL}
    kernels: Sequence[Span] = [s for s in trace.spans if s.kind == "kernel"]
    gaps = [
        Span(0, "launch", one.end_s, other.start_s, other.part)
        for one, other in pairwise(kernels)
        if 0 < other.start_s - one.end_s <= LAUNCH_S and called[other.part] > one.end_s
    ]
    return Trace(trace.ranks, (*trace.spans, *gaps))
