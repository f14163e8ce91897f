"""The plan of stage 3 is what its trace recorded, and it can be carried out."""

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import Zero3, zero3
from parallel_lab.plan import check_plan
from parallel_lab.runtime import ring_cost
from parallel_lab.simulate import simulate

WIDTHS = (6, 6, 12, 18, 6, 6)  # units of different sizes, so that bytes tell which one a message is of
SIZES = [a * b + b for a, b in pairwise(WIDTHS)]
LAYERS = len(SIZES)
OURS = {"gather": "all_gather", "reduce": "reduce_scatter"}


def steps(prefetch):
    model = Zero3(nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(WIDTHS)]), prefetch=prefetch)
    for _ in range(2):  # the order of the units is known from the second step on
        model.zero_grad()
        dist.barrier()
        model(torch.ones(1, WIDTHS[0])).sum().backward()


def last_step(trace, rank):
    spans = trace.of(rank)
    return spans[max(i for i, s in enumerate(spans) if s.kind == "barrier") + 1 :]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 7])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_trace_is_the_plan(n, prefetch):
    trace, plan = launch(steps, prefetch, ranks=n).trace, zero3.plan(n, LAYERS, prefetch)
    for rank in range(n):
        spans = last_step(trace, rank)
        recorded = [(OURS.get(s.kind, s.kind), s.part, s.mb) for s in spans if s.part >= 0]
        assert recorded == [(op.kind, op.part, op.mb) for op in plan.rows[rank]]
        # Each mark of ours stands right before the collective that the door recorded, with the bytes of that unit.
        for mark, sent in pairwise(spans):
            if mark.kind in OURS:
                size = 4 * -(-SIZES[mark.part] // n) * n
                assert (sent.kind, sent.bytes) == (OURS[mark.kind], size)
                assert sent.sent_bytes == ring_cost(sent.kind, n, size).sent_bytes
        collectives = [s.kind for s in spans if s.kind in OURS.values()]
        assert (collectives.count("all_gather"), collectives.count("reduce_scatter")) == (2 * LAYERS, LAYERS)


@pytest.mark.parametrize(("n", "layers", "prefetch"), [(1, 1, 0), (2, 3, 0), (4, 8, 1), (3, 5, 2), (2, 4, 9)])
def test_the_plan_can_be_carried_out(n, layers, prefetch):
    plan = zero3.plan(n, layers, prefetch)
    check_plan(plan)
    for row in plan.rows:
        there, most = set(), 0
        for op in row:
            if op.kind == "all_gather":
                there.add(op.part)
            elif op.kind == "free":
                there.remove(op.part)
            elif op.kind in "FB":
                assert op.part in there
            most = max(most, len(there))
        assert not there and most == min(layers, 1 + prefetch)


def test_prefetch_hides_the_gathers():
    class Fixed:
        def seconds(self, op):
            return {"F": 1.0, "B": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}.get(op.kind, 0.0)

        def bytes(self, op):
            return 0

    def duration(prefetch):
        return simulate(zero3.plan(2, 8, prefetch), Fixed()).duration_s

    assert duration(1) < duration(0)
    assert duration(0) >= 8 * (1 + 2) + 16  # without it, computing waits for each gather


@pytest.mark.parametrize("arguments", [(0, 2, 1), (2, 0, 1), (2, 2, -1)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match="expected at least"):
        zero3.plan(*arguments)
