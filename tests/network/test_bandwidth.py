"""The bandwidths of nccl-tests against the prices of collectives."""

import pytest

from parallel_lab.network import Link, bus_bandwidth, bus_factor, price, seconds_at

S, W = 840e6, 50e9


@pytest.mark.parametrize("n", [2, 3, 8, 64])
@pytest.mark.parametrize("kind", ["all_reduce", "reduce_scatter", "all_gather", "all_to_all"])
def test_what_reaches_the_bound_has_the_bus_bandwidth_of_its_link(kind, n):
    assert bus_factor(kind, n) == pytest.approx(price(kind, n, S).sent_bytes / S)
    took_s = price(kind, n, S).seconds(Link(0.0, W))
    assert bus_bandwidth(kind, n, S, took_s) == pytest.approx(W)
    assert seconds_at(kind, n, S, W) == pytest.approx(took_s)


def test_a_broadcast_has_one_bandwidth():
    assert bus_bandwidth("broadcast", 8, S, 2.0) == bus_bandwidth("reduce", 64, S, 2.0) == S / 2


def test_eight_ranks():
    assert bus_bandwidth("all_reduce", 8, 8e9, 40e-3) == pytest.approx(350e9)  # S/t is 200 GB/s


def test_what_has_no_bus_bandwidth():
    with pytest.raises(ValueError, match="no bus bandwidth of barrier: there is one of all_reduce, broadcast"):
        bus_bandwidth("barrier", 2, 8, 1.0)
