"""The simulator against times worked out by hand, closed forms, and a slow simulator written another way."""

import random
from collections.abc import Iterable

import pytest

from parallel_lab.pipeline import gpipe, interleaved, one_f_one_b
from parallel_lab.plan import RECV, SEND, Op, Plan, parse, recv, send
from parallel_lab.simulate import AlphaBeta, CostModel, PassCost, simulate
from parallel_lab.trace import Sample

ALPHA, BETA = 1e-3, 1e6


class Table(CostModel):
    """A cost model that looks everything up by how an op prints; what is not in a table is free."""

    def __init__(self, seconds, held=()):
        self._seconds, self._held = seconds, dict(held)

    def seconds(self, op):
        return self._seconds.get(str(op), 0.0)

    def held(self, op):
        return self._held.get(str(op), 0)


def times(trace):
    return {f"{s.rank}:{s.op}": (s.start_s, s.end_s) for s in trace.spans}


def ring(n: int) -> Plan:
    """Ring all-reduce: in each of 2(n-1) rounds every rank passes on the chunk that it got in the round before."""
    ops: list[Op] = []
    needs: dict[Op, Iterable[Op]] = {}
    for rank in range(n):
        got = None
        for step in range(2 * (n - 1)):
            reduce = step < n - 1
            out = send(rank, (rank + 1) % n, (rank - step) % n, step)
            if got:
                needs[out] = [got]
            got = recv(rank, (rank - 1) % n, (rank - 1 - step) % n, step, reduce=reduce)
            ops += [out, got]
    return Plan.of(ops, needs)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 16])
def test_ring_all_reduce_takes_its_closed_form(n):
    size = 840 * 16
    chunk = size // n
    trace = simulate(ring(n), AlphaBeta(ALPHA, BETA, chunk))
    assert trace.simulated
    assert trace.duration_s == pytest.approx(2 * (n - 1) * (ALPHA + chunk / BETA), rel=1e-12)
    for rank in range(n):
        assert trace.bytes_sent(rank) == 2 * (n - 1) * chunk
        assert trace.messages(rank) == 2 * (n - 1)


def test_uneven_chunks_are_charged_to_the_byte():
    sizes = [3, 2, 2]  # 7 numbers of one byte over 3 ranks
    trace = simulate(ring(3), AlphaBeta(0.0, 1.0, sizes))
    assert [trace.bytes_sent(r) for r in range(3)] == [3 + 2 + 2 + 3, 2 + 3 + 2 + 2, 2 + 2 + 3 + 2]


def test_a_lone_message_costs_its_time_once():
    trace = simulate(Plan.of([send(0, 1, 0), recv(1, 0, 0)]), AlphaBeta(ALPHA, BETA, 5000))
    assert [(s.start_s, s.end_s) for s in trace.spans] == [(0, pytest.approx(0.006)), (0, pytest.approx(0.006))]
    sent, received = trace.spans
    assert (sent.bytes, sent.sent_bytes, sent.sent_messages) == (5000, 5000, 1)
    assert (received.bytes, received.sent_bytes, received.sent_messages) == (5000, 0, 0)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_who_receives_from_many_takes_one_after_another(workers):
    ops = [send(w, 0, 0) for w in range(1, workers + 1)] + [recv(0, w, 0) for w in range(1, workers + 1)]
    trace = simulate(Plan.of(ops), AlphaBeta(ALPHA, BETA, 1000))
    assert trace.duration_s == pytest.approx(workers * (ALPHA + 1000 / BETA))
    assert all(trace.busy_s(w, SEND) == pytest.approx(ALPHA + 1000 / BETA) for w in range(1, workers + 1))
    assert trace.busy_s(0, RECV) == pytest.approx(trace.duration_s)


def test_who_sends_to_many_sends_one_after_another():
    ops = [send(0, w, 0) for w in (1, 2, 3)] + [recv(w, 0, 0) for w in (1, 2, 3)]
    trace = simulate(Plan.of(ops), AlphaBeta(0.0, 1.0, 10))
    assert [s.end_s for w in (1, 2, 3) for s in trace.of(w)] == [10, 20, 30]


def test_a_receive_waits_for_its_other_needs_and_takes_its_time_then():
    work = Op(1, "F", 0)
    plan = Plan.of([send(0, 1, 0), work, recv(1, 0, 0)], {recv(1, 0, 0): [work]})
    trace = simulate(plan, Table({"0send0>1": 2.0, "0recv0<0": 2.0, "0F0": 5.0}))
    assert times(trace)["1:0recv0<0"] == (5.0, 7.0)
    assert times(trace)["0:0send0>1"] == (0.0, 2.0)  # the message left without waiting for the receiver


def test_a_receive_is_never_over_before_its_send():
    trace = simulate(Plan.of([send(0, 1, 0), recv(1, 0, 0)]), Table({"0send0>1": 3.0, "0recv0<0": 1.0}))
    assert times(trace)["1:0recv0<0"] == (0.0, 3.0)


def test_both_directions_of_a_link_work_at_once():
    ops = [send(0, 1, 0), recv(0, 1, 1), send(1, 0, 1), recv(1, 0, 0)]
    assert simulate(Plan.of(ops), AlphaBeta(0.0, 1.0, 4)).duration_s == 4


def test_lanes_overlap_and_needs_hold_them_back():
    first, second = Op(0, "F", 0, 0), Op(0, "F", 0, 1)
    out = [send(0, 1, 0, mb) for mb in (0, 1)]
    ops = [first, out[0], second, out[1], recv(1, 0, 0, 0), recv(1, 0, 0, 1)]
    trace = simulate(Plan.of(ops, {out[0]: [first], out[1]: [second]}), AlphaBeta(0.0, 1.0, 2, compute_s=3.0))
    assert times(trace)["0:0send0>1"] == (3.0, 5.0)
    assert times(trace)["0:0send1>1"] == (6.0, 8.0)
    assert trace.overlap_s(0) == 2.0


@pytest.mark.parametrize("plan", [gpipe(3, 4), one_f_one_b(4, 6), interleaved(2, 4, 2), ring(4), Plan.of([], ranks=2)])
def test_spans_stand_in_row_order(plan):
    trace = simulate(plan, PassCost(message_s=0.5))
    assert trace.ranks == plan.ranks
    assert trace.plan().rows == plan.rows


class Rich(Table):
    """A table that also knows ports, how long they are held, and which ops are one collective."""

    def occupancy_s(self, op):
        return self.seconds(op) // 2

    def port(self, op):
        return f"{op.lane} {op.part % 2}"

    def meeting(self, op):
        return op.part


def slow_times(plan, cost):
    """The same rules, written as repeated relaxation: raise every start until nothing moves."""
    begin, finish = dict.fromkeys(plan, 0.0), dict.fromkeys(plan, 0.0)
    together = {op: [other for other in plan if op.kind == other.kind == "barrier" and op.part == other.part]
                for op in plan}  # fmt: skip
    moved = True
    while moved:
        moved = False
        for row in plan.rows:
            free = {}
            for op in row:
                members = (isinstance(cost, Rich) and together[op]) or [op]
                sender = op.sender() if op.kind.startswith("recv") else None
                awaited = [finish[need] for need in plan.needs.get(op, ()) if need != sender]
                awaited += [begin[other] for other in members] + ([begin[sender]] if sender else [])
                start = max([free.get(cost.port(op), 0.0), *awaited])
                end = start + max(map(cost.seconds, members))
                until = start + max(map(cost.occupancy_s, members))
                if sender:
                    end = until = max(until, finish[sender])
                moved |= (start, end) != (begin[op], finish[op])
                begin[op], finish[op] = start, end
                free[cost.port(op)] = until
    return {f"{op.rank}:{op}": (begin[op], finish[op]) for op in plan}


def random_plan(draw: random.Random) -> Plan:
    """Ops of random lanes over 4 ranks, in which everything needs only earlier ones, so that it can finish."""
    ops: list[Op] = []
    needs: dict[Op, Iterable[Op]] = {}
    for k in range(40):
        rank, kind = draw.randrange(4), draw.random()
        if kind < 0.4:
            peer = draw.choice([r for r in range(4) if r != rank])
            new = [send(rank, peer, k), recv(peer, rank, k, reduce=draw.random() < 0.5)]
        elif kind < 0.5:
            new = [Op(r, "barrier", k, lane=SEND) for r in range(4)]
        else:
            new = [Op(rank, "F", k)]
        for op in new:
            needs[op] = draw.sample(ops, min(len(ops), draw.randrange(3)))
        ops += new
    return Plan.of(ops, needs)


@pytest.mark.parametrize("model", [Table, Rich])
@pytest.mark.parametrize("seed", range(20))
def test_random_plans_agree_with_a_slow_simulator(seed, model):
    draw = random.Random(seed)
    plan = random_plan(draw)
    cost = model({str(op): draw.randrange(9) for op in plan})
    assert times(simulate(plan, cost)) == slow_times(plan, cost)


def test_memory_is_taken_at_the_start_and_given_back_at_the_end():
    plan = parse("0F0 0F1 0B0 0B1")
    cost = PassCost(forward_s=1, backward_s=2, activation_bytes=10)
    trace = simulate(plan, cost)
    assert trace.memory == (Sample(0, 0.0, 10), Sample(0, 1.0, 20), Sample(0, 4.0, 10), Sample(0, 6.0, 0))
    assert trace.peak_bytes(0) == 20


def test_what_is_given_back_is_free_for_what_starts_then():
    assert simulate(parse("0F0 0B0 0F1 0B1"), PassCost(activation_bytes=10)).peak_bytes(0) == 10


def test_ops_that_take_no_time_keep_their_turn():
    cost = PassCost(forward_s=0, backward_s=0, activation_bytes=10)
    trace = simulate(parse("0F0 0F1 0B0 0B1"), cost)
    assert [s.bytes for s in trace.memory] == [10, 20, 10, 0]


def test_memory_over_lanes_of_one_rank():
    work = Op(0, "F", 0)
    plan = Plan.of([work, recv(0, 1, 1), send(1, 0, 1)])
    cost = Table({"0F0": 3.0, "1recv0<1": 2.0, "1send0>0": 2.0}, {"0F0": -5, "1recv0<1": 7})
    assert [(s.time_s, s.bytes) for s in simulate(plan, cost).memory] == [(0.0, 7), (3.0, 2)]


def test_what_one_lane_gives_back_is_free_for_another():
    take, work, before = recv(0, 1, 1), Op(0, "F", 0), Op(1, "F", 2)
    plan = Plan.of([take, work, before, send(1, 0, 1)], {send(1, 0, 1): [before]})
    cost = Table({"0F0": 3.0, "2F0": 3.0, "1send0>0": 1.0, "1recv0<1": 1.0}, {"0F0": -5, "1recv0<1": 7})
    assert [(s.time_s, s.bytes) for s in simulate(plan, cost).memory] == [(3.0, -5), (3.0, 2)]


def test_cost_without_memory_gives_no_samples():
    class Bare(CostModel):
        def seconds(self, op):
            return 1.0

    trace = simulate(gpipe(2, 2), Bare())
    assert trace.memory == () and trace.peak_bytes(0) == 0
