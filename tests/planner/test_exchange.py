"""Which link an axis takes, how rings share a node's cards, and a measured all-reduce."""

import pytest

from parallel_lab.network import price
from parallel_lab.planner import Constants, Exchange, cluster

WHOLE = Constants(fast_share=1.0, slow_share=1.0)
VTRAIN_8 = {67_108_864: 579_900, 268_435_456: 2_162_300, 1_073_741_824: 8_193_000}
"""All-reduces of so many bytes over eight A100 in ns: vTrain's repository, trace/a100/AR_GPU8_LUT."""


@pytest.fixture
def selene():
    return Exchange(cluster("a100-selene", gpus=64), WHOLE)


def test_links(selene):
    inside, between = selene.cluster.fast, selene.cluster.slow
    assert selene.link(8, 1) == inside
    assert selene.link(2, 4) == inside
    # tp 8: a data ring takes in one GPU of each node, so eight rings share its eight cards.
    assert selene.link(8, 8).bytes_per_s == between.bytes_per_s
    # tp 4: two GPUs of a ring stand in a node, and four rings share the cards.
    assert selene.link(16, 4).bytes_per_s == 2 * between.bytes_per_s
    # One ring over all GPUs has all the cards: 200 GB/s, less than the links in a node.
    assert selene.link(64, 1).bytes_per_s == 8 * between.bytes_per_s < inside.bytes_per_s
    assert selene.message_s(8, 4, 1e9) == pytest.approx(1e9 / between.bytes_per_s, rel=1e-3)


def test_prices(selene):
    link = selene.link(8, 8)
    assert selene.seconds("all_reduce", 8, 8, 1e9) == price("all_reduce", 8, 1e9).seconds(link)
    assert selene.seconds("all_reduce", 1, 8, 1e9) == selene.seconds("all_gather", 8, 8, 0) == 0
    # Experts: in one node all bytes go over its links; over two, half of them through the cards.
    near, far = (selene.seconds("all_to_all", ranks, 1, 1e9) for ranks in (8, 16))
    assert near == pytest.approx(7 / 8 * 1e9 / selene.cluster.fast.bytes_per_s, rel=0.02)
    assert far == pytest.approx(7 / 16 * 1e9 / selene.cluster.fast.bytes_per_s + 0.5e9 / 25e9, rel=0.02)


@pytest.mark.parametrize("size_bytes", VTRAIN_8)
def test_a_measured_all_reduce(size_bytes):
    found = Exchange(cluster("a100-vtrain", gpus=8), Constants(fast_share=0.76))
    assert found.seconds("all_reduce", 8, 1, size_bytes) == pytest.approx(VTRAIN_8[size_bytes] * 1e-9, rel=0.15)
