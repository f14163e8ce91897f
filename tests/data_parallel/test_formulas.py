"""The closed forms of bytes held and sent, without ranks."""

import pytest

from parallel_lab.collectives import ring
from parallel_lab.data_parallel import formulas
from parallel_lab.data_parallel.units import padded as padded_rows

HELD = {  # bytes per parameter, in mixed precision and in float32
    "ddp": (lambda n: 16, lambda n: 16),
    "zero1": (lambda n: 4 + 12 / n, lambda n: 8 + 8 / n),
    "zero2": (lambda n: 2 + 14 / n, lambda n: 4 + 12 / n),
    "zero3": (lambda n: 16 / n, lambda n: 16 / n),
}


@pytest.mark.parametrize("technique", formulas.TECHNIQUES)
def test_the_closed_forms(technique):
    for n in (1, 2, 3, 64):
        for form, mixed in zip(HELD[technique], (True, False), strict=True):
            assert formulas.held_bytes(technique, 1000, n, mixed) == pytest.approx(1000 * form(n))
    times = {"ddp": 2, "zero1": 3, "zero2": 2, "zero3": 3}[technique]
    assert formulas.sent_bytes(technique, 1024, 4, 2) == times * 3 * 1024 * 2 // 4


def test_the_paper_s_example():
    """ZeRO, figure 1: 7.5 B parameters on 64 ranks hold 120, 31.4, 16.6 and 1.9 GB."""
    gigabytes = [formulas.held_bytes(t, 7_500_000_000, 64, True) / 1e9 for t in formulas.TECHNIQUES]
    assert gigabytes == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)


def test_padding():
    assert formulas.padded([56, 57, 1], 4) == 56 + 60 + 4
    assert formulas.padded([56], 1) == 56
    assert padded_rows([(5, 3), (4,), ()], 4) == 8 * 3 + 4 + 4


@pytest.mark.parametrize(("technique", "n"), [("zero4", 2), ("ddp", 0)])
def test_nonsense_is_refused(technique, n):
    with pytest.raises(ValueError, match="expected"):
        formulas.held_bytes(technique, 10, n)
    with pytest.raises(ValueError, match="expected"):
        formulas.sent_bytes(technique, 10, n, 4)


def test_the_layouts_of_megatron_s_distributed_optimizer():
    """Its table: 16-bit gradients 20 and 4 + 16/d bytes, float32 gradients 18 and 6 + 12/d, float32 16 and 8 + 8/d."""
    table = {"copied gradients": (20, 4, 16), "main gradients": (18, 6, 12), "float32": (16, 8, 8)}
    for layout, (whole, kept, shared) in table.items():
        assert formulas.held_bytes("ddp", 1, 8, layout=layout) == whole
        assert formulas.held_bytes("zero1", 1, 8, layout=layout) == pytest.approx(kept + shared / 8)


def test_tokens_that_hide():
    """For 16 bits on the wire both passes of DDP and of stage 3 need F/W; one card of 100 Gbit/s for a node, 32,000."""
    flops, card = 400e12, 12.5e9
    assert formulas.tokens_to_hide("ddp", flops, card) == (0, 32_000)
    assert formulas.tokens_to_hide("zero3", flops, card) == (32_000, 32_000)
    assert formulas.tokens_to_hide("zero3", flops, 8 * 50e9) == (1000, 1000)
    assert formulas.tokens_to_hide("zero3", flops, card, reduce_bytes=4) == (32_000, 48_000)
    assert formulas.tokens_to_hide("zero3", flops, card, recomputed=True).backward == pytest.approx(32_000 * 2 / 3)
    assert formulas.tokens_to_hide("zero1", flops, card) == (32_000, 16_000)
    with pytest.raises(ValueError, match="expected"):
        formulas.tokens_to_hide("zero4", flops, card)


@pytest.mark.parametrize("how", [{}, {"reduce_bytes": 4}, {"recomputed": True}])
@pytest.mark.parametrize("technique", ["ddp", "zero1", "zero3", "hybrid"])
def test_at_the_bound_a_pass_sends_as_long_as_it_computes(technique, how):
    for k, tokens in enumerate(formulas.tokens_to_hide(technique, 4e14, 5e10, **how)):
        computing, sending = formulas.pass_seconds(technique, 1e9, tokens, 4e14, 5e10, **how)
        assert computing[k] == pytest.approx(sending[k])


def test_what_a_node_sends():
    count = 1024
    assert formulas.node_sent_bytes("zero3", count, 2, 4) == pytest.approx(3 * 7 / 8 * 2 * count)
    assert formulas.node_sent_bytes("hybrid", count, 2, 4) == pytest.approx(2 * 1 / 2 * 2 * count)
    assert formulas.node_sent_bytes("hpz", count, 2, 4) == pytest.approx(2 * 7 / 8 * 2 * count)
    assert formulas.node_sent_bytes("zero3", count, 2, 4, microbatches=4) == pytest.approx(9 * 7 / 8 * 2 * count)
    assert formulas.node_sent_bytes("hybrid", count, 2, 4, microbatches=4) == pytest.approx(2 * count)
    assert formulas.node_sent_bytes("zero2", count, 2, 4, microbatches=4) == pytest.approx(2 * 7 / 8 * 2 * count)
    with pytest.raises(ValueError, match="at least 1"):
        formulas.node_sent_bytes("zero3", count, 0, 4)


def test_the_ring_of_the_plan_crosses_as_the_formula_says():
    nodes, per_node, item = 2, 4, 2
    for plan in (ring.all_gather_plan(8), ring.reduce_scatter_plan(8)):
        crossing = [op for op in plan if op.lane == "send" and op.rank // per_node != op.peer // per_node]
        assert {op.rank for op in crossing} == {3, 7}
        of_node_0 = sum(op.rank == 3 for op in crossing) * 1024 // 8 * item
        assert of_node_0 * 3 == formulas.node_sent_bytes("zero3", 1024, nodes, per_node, item)


def test_what_offloading_moves():
    assert formulas.offloaded(8_000, 8) == (12_000, 2_000, 2_000, 0)
    assert formulas.offloaded(8_000, 8, disk=True).disk == 12_000
