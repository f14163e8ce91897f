"""What servers and workers send, byte by byte; the trace as planned; the simulated plan beside the formula."""

import pytest
import torch
from small import LOSS, batches, mlp

from parallel_lab import Link, launch
from parallel_lab import parameter_server as ps
from parallel_lab.simulate import AlphaBeta, simulate

ELEMENTS, ITEM_BYTES = 66, 8  # neither 4 servers nor 5 divide them


def train(ranks, **options):
    def fn():
        return ps.train(mlp(), batches(4, 7), torch.optim.SGD, loss=LOSS, lr=0.1, **options)

    return launch(fn, ranks=ranks, timeout=30)


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (2, 1), (3, 2), (2, 5)])
def test_bytes_are_those_of_the_formulas(workers, servers):
    run = train(workers + servers, servers=servers)
    steps = 4
    for rank, record in enumerate(run.results):
        sent = sum(s.sent_bytes for s in run.trace.of(rank) if s.peer >= 0)
        parameters = sum(s.sent_bytes for s in run.trace.of(rank) if s.kind == "send")
        if rank < servers:
            expected = ps.formulas.server_sent_bytes(ELEMENTS, servers, ITEM_BYTES, steps, workers, rank)
            shard = len(range(ELEMENTS)[ps.sharding.bounds(ELEMENTS, servers)[rank]])
            assert parameters == workers * (steps + 1) * (8 + shard * ITEM_BYTES)
        else:
            expected = ps.formulas.worker_sent_bytes(ELEMENTS, servers, ITEM_BYTES, steps)
            assert parameters == steps * ELEMENTS * ITEM_BYTES, "the gradient, once a step"
        assert sent == record.sent_bytes == expected


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (3, 2), (2, 3)])
def test_the_trace_is_the_plan(workers, servers):
    run = train(workers + servers, servers=servers)
    kinds = {"F", "B", "send", "recv", "update"}
    for step in range(4):
        plan = ps.plan(workers, servers, step)
        spans = {s.op: s for s in run.trace.spans if s.kind in kinds and s.mb == step}
        assert set(spans) == set(plan)
        for rank in range(servers, workers + servers):
            order = [s.op for s in run.trace.of(rank) if s.kind in kinds and s.mb == step]
            assert order == list(plan.rows[rank])
        for op, before in plan.needs.items():
            if op.kind != "recv":
                late = [str(each) for each in before if spans[each].end_s > spans[op].start_s]
                assert not late, f"{op} of rank {op.rank} did not wait for {late}"


SHAPES = [(1, 1), (4, 1), (4, 2), (4, 4), (2, 4), (3, 2), (5, 2), (5, 4), (3, 4)]


@pytest.mark.parametrize(("workers", "servers"), SHAPES)
def test_the_simulated_plan_takes_what_the_formula_says(workers, servers):
    size, link = 80_000_000, Link(0.0, 1e9)
    trace = simulate(ps.plan(workers, servers), AlphaBeta(0.0, 1e9, part_bytes=size // servers))
    expected = ps.formulas.step_seconds(workers, servers, size, link)
    assert trace.duration_s == pytest.approx(expected, rel=1e-4)


def test_updates_of_the_server_are_in_the_trace_with_their_shard():
    run = train(4, servers=2)
    for rank in (0, 1):
        updates = [s for s in run.trace.of(rank) if s.kind == "update"]
        assert [(s.part, s.mb) for s in updates] == [(rank, step) for step in range(4)]
