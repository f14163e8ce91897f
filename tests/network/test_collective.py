"""The price of a collective against its plan, simulated message by message."""

import pytest

from parallel_lab.collectives import plan_for
from parallel_lab.network import AlphaBeta, Link, Price, exchange_cost, price, ring_cost
from parallel_lab.simulate import simulate

LINK = Link(1e-3, 1e6)
HAVE = {
    "ring": ("all_reduce", "reduce_scatter", "all_gather"),
    "full_mesh": ("all_reduce", "reduce_scatter", "all_gather", "all_to_all"),
    "tree": ("all_reduce", "broadcast", "reduce"),
    "star": ("all_reduce", "broadcast", "reduce"),
    "recursive_doubling": ("all_reduce",),
    "halving_doubling": ("all_reduce", "reduce_scatter", "all_gather"),
    "relay": ("all_to_all",),
    "relay_both_ways": ("all_to_all",),
}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 13, 16])
@pytest.mark.parametrize(("algorithm", "kind"), [(name, kind) for name, kinds in HAVE.items() for kind in kinds])
def test_a_price_is_what_its_plan_costs(algorithm, kind, n):
    if algorithm == "halving_doubling" and kind != "all_reduce" and n & (n - 1):
        with pytest.raises(ValueError, match="power of two"):
            price(kind, n, 100, algorithm=algorithm)
        return
    name, both_ways = algorithm.removesuffix("_both_ways"), algorithm.endswith("both_ways")
    plan = plan_for(kind, name, n, *([both_ways] if name == "relay" else []))
    size = 32 * 9 * 5 * 7 * 13
    # Of all_to_all a rank puts in `size`, and the plan's tensor is the grid of all that they put in.
    bounds = plan.bounds(size * n if kind == "all_to_all" else size)
    trace = simulate(plan, AlphaBeta.over(LINK, [stop - start for start, stop in bounds]))
    prices = [price(kind, n, size, rank, algorithm) for rank in range(n)]
    assert [p.sent_bytes for p in prices] == [trace.bytes_sent(rank) for rank in range(n)]
    assert [p.sent_messages for p in prices] == [trace.messages(rank) for rank in range(n)]
    assert [p.seconds(LINK) for p in prices] == pytest.approx([trace.duration_s] * n, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_chain_is_cut_in_as_many_pieces_as_ranks(n):
    for kind in ("broadcast", "reduce"):
        trace = simulate(plan_for(kind, "ring", n, 0, n), AlphaBeta.over(LINK, 60))
        prices = [ring_cost(kind, n, 60 * n, rank) for rank in range(n)]
        # Counted from the root along the chain: a broadcast goes up it, a reduce comes down.
        assert [p.sent_bytes for p in prices] == [trace.bytes_sent(rank) for rank in range(n)]
        assert [p.sent_messages for p in prices] == [trace.messages(rank) for rank in range(n)]
        assert prices[0].seconds(LINK) == pytest.approx(trace.duration_s)


def test_an_exchange_is_charged_what_it_moves():
    assert exchange_cost([0, 7, 900]) == Price(907, 2, 2, 453.5)
    assert exchange_cost([0, 7, 900]).seconds(LINK) == pytest.approx(2e-3 + 907e-6)
    assert exchange_cost([10] * 3) == ring_cost("all_to_all", 4, 40)
    assert exchange_cost([]) == exchange_cost([0]) == Price(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("all_sum", 2, 8), "no such collective: all_sum"),
        (("all_reduce", 2, 8, 0, "snake"), "no such algorithm: snake; expected one of ring"),
        (("all_to_all", 2, 8, 0, "tree"), "tree has no all_to_all: it has all_reduce, broadcast, reduce"),
        (("barrier", 2, 8, 0, "full_mesh"), "full_mesh has no barrier"),
    ],
)
def test_what_has_no_price(arguments, message):
    with pytest.raises(ValueError, match=message):
        price(*arguments)
