"""Cost models against their formulas."""

import pytest

from parallel_lab.network import Link
from parallel_lab.pipeline.needs import with_needs
from parallel_lab.plan import Op, Plan, recv, send
from parallel_lab.simulate import AlphaBeta, Decoding, PassCost, Roofline, Topology, simulate


def test_alpha_beta():
    cost = AlphaBeta(0.5, 100.0, 300, compute_s=7.0)
    for op in (send(0, 1, 2), recv(1, 0, 2), recv(1, 0, 2, reduce=True)):
        assert cost.seconds(op) == 3.5
        assert cost.bytes(op) == 300
        assert cost.held(op) == 0
    assert (cost.seconds(Op(0, "F", 2)), cost.bytes(Op(0, "F", 2))) == (7.0, 0)


@pytest.mark.parametrize("part_bytes", [[10, 20, 30], (10, 20, 30), lambda op: 10 * (op.part + 1)])
def test_parts_of_several_sizes(part_bytes):
    cost = AlphaBeta(1.0, 10.0, part_bytes)
    assert [cost.bytes(send(0, 1, part)) for part in range(3)] == [10, 20, 30]
    assert [cost.seconds(send(0, 1, part)) for part in range(3)] == [2.0, 3.0, 4.0]


def test_compute_as_a_function_of_the_op():
    cost = AlphaBeta(0.0, 1.0, compute_s=lambda op: 2.0 * op.part)
    assert cost.seconds(Op(0, "F", 3)) == 6.0


def test_topology_takes_the_slow_link_between_nodes():
    cost = Topology(4, intra=Link(1.0, 100.0), inter=Link(5.0, 10.0), part_bytes=100, compute_s=0.25)
    assert cost.seconds(send(0, 3, 0)) == 2.0
    assert cost.seconds(send(3, 4, 0)) == cost.seconds(recv(4, 3, 0)) == 15.0
    assert cost.seconds(send(5, 7, 0)) == 2.0
    assert cost.seconds(Op(0, "F", 0)) == 0.25
    assert (cost.bytes(send(0, 1, 0)), cost.bytes(Op(0, "F", 0)), cost.held(Op(0, "F", 0))) == (100, 0, 0)


def test_topology_in_a_simulation():
    ops = [send(0, 1, 0), recv(1, 0, 0), send(2, 1, 0), recv(1, 2, 0)]
    trace = simulate(Plan.of(ops), Topology(2, Link(0.0, 100.0), Link(0.0, 10.0), part_bytes=100))
    assert [s.end_s for s in trace.of(0)] == [1.0]
    assert [s.end_s for s in trace.of(2)] == [10.0]
    assert [s.end_s for s in trace.of(1)] == [1.0, 10.0], "each kind of link has its own port"


def test_pass_cost():
    cost = PassCost(1, 2, 0.75, 1.25, message_s=0.5, activation_bytes=8, message_bytes=3)
    assert [cost.seconds(Op(0, kind, 0)) for kind in "FBIW"] == [1, 2, 0.75, 1.25]
    assert [cost.held(Op(0, kind, 0)) for kind in "FBIW"] == [8, -8, 0, -8]
    assert [cost.bytes(Op(0, kind, 0)) for kind in "FBIW"] == [0, 0, 0, 0]
    for op in (send(0, 1, 0), recv(1, 0, 0)):
        assert (cost.seconds(op), cost.bytes(op), cost.held(op)) == (0.5, 3, 0)


def test_what_the_first_half_of_a_split_backward_gives_back():
    cost = PassCost(activation_bytes=[10, 20], weight_bytes=[4, 6])
    assert [cost.held(Op(1, kind, 1)) for kind in "FBIW"] == [20, -20, -14, -6]
    assert PassCost(activation_bytes=8, weight_bytes=0).held(Op(0, "I", 0)) == -8


def test_pass_cost_of_each_stage():
    cost = PassCost(forward_s=[1, 5], backward_s=(2, 9), activation_bytes=[10, 20], message_bytes=[4, 6])
    assert [cost.seconds(Op(s, "F", s)) for s in (0, 1)] == [1, 5]
    assert [cost.seconds(Op(s, "B", s)) for s in (0, 1)] == [2, 9]
    assert [cost.held(Op(s, "B", s)) for s in (0, 1)] == [-10, -20]
    assert [cost.bytes(send(0, 1, s)) for s in (0, 1)] == [4, 6]


def test_pass_cost_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="not 0step0"):
        PassCost().seconds(Op(0, "step", 0))


def test_roofline():
    roof = Roofline(flops_per_s=100.0, bytes_per_s=10.0)
    assert roof.ridge == 10.0
    assert roof.time_s(1000, 10) == 10.0 and roof.bound(1000, 10) == "compute"
    assert roof.time_s(10, 100) == 10.0 and roof.bound(10, 100) == "memory"


def test_decoding_ends_where_the_card_is_full():
    gpu = Roofline(flops_per_s=989e12, bytes_per_s=3.35e12)
    seven = Decoding(parameters=7e9, kv_bytes=524_288)
    full = seven.largest_batch(80e9, context=1024)
    assert full == 122
    assert seven.held_bytes(full, 1024) <= 80e9 < seven.held_bytes(full + 1, 1024)
    assert seven.step_s(gpu, 1, 1024) == pytest.approx((14e9 + 1024 * 524_288) / 3.35e12)
    assert seven.bound(gpu, full, 1024) == "memory"
    assert Decoding(7e9, 524_288, weight_bytes=1).largest_batch(80e9, 1024) == 135
    assert Decoding(70e9, 327_680).largest_batch(80e9, 1024) == 0


def test_weights_of_one_byte_halve_the_batch_at_which_arithmetic_takes_over():
    gpu = Roofline(flops_per_s=300.0, bytes_per_s=1.0)
    for weight_bytes, batch in ((2.0, 300), (1.0, 150)):
        model = Decoding(parameters=1.0, kv_bytes=0.0, weight_bytes=weight_bytes)
        assert [model.bound(gpu, b, 0) for b in (batch - 1, batch)] == ["memory", "compute"]


def test_roofline_as_the_compute_of_another_model():
    roof = Roofline(100.0, 10.0, flops=lambda op: 100.0 * op.part, moved_bytes=20.0)
    cost = AlphaBeta(1.0, 1.0, compute_s=roof.seconds)
    assert [cost.seconds(Op(0, "F", part)) for part in (0, 1, 3)] == [2.0, 2.0, 3.0]
    assert roof.bytes(Op(0, "F", 0)) == 0
    with pytest.raises(ValueError, match="prices computation"):
        roof.seconds(send(0, 1, 0))


def zb_h1_row(rank: int, p: int, m: int) -> list[Op]:
    """One rank of the zero-bubble schedule H1: W waits until `rank` more microbatches have passed I."""
    row, warm_up = [Op(rank, "F", rank, mb) for mb in range(p - rank)], p - rank
    for mb in range(m):
        row.append(Op(rank, "I", rank, mb))
        row += [Op(rank, "W", rank, mb - rank)] if mb >= rank else []
        row += [Op(rank, "F", rank, mb + warm_up)] if mb + warm_up < m else []
    return row + [Op(rank, "W", rank, mb) for mb in range(m - rank, m)]


@pytest.mark.parametrize("p", [2, 4])
def test_zb_h1_holds_what_the_paper_says(p):
    plan = with_needs([zb_h1_row(rank, p, 3 * p) for rank in range(p)])
    trace = simulate(plan, PassCost(activation_bytes=10, weight_bytes=4))
    assert [trace.peak_bytes(rank) for rank in range(p)] == [(p - rank) * 10 + rank * 4 for rank in range(p)]
    assert {s.bytes for s in trace.memory if s.time_s == trace.duration_s} == {0}
    whole = simulate(plan, PassCost(activation_bytes=10))
    assert [whole.peak_bytes(rank) for rank in range(p)] == [p * 10] * p
