"""Closed forms against counting, and against the numbers that were published."""

import itertools
import math

import pytest

from parallel_lab.systems.storage import formulas


def test_one_reader_gets_half_the_bandwidth_at_the_half_size():
    half = formulas.half_size(0.01, 1e9)
    assert half == 1e7
    assert formulas.throughput(half, 0.01, 1e9) == pytest.approx(0.5e9)
    assert formulas.throughput(4096, 0.01, 1e9) == pytest.approx(4096 / 0.01, rel=1e-3), "small: latency alone"


@pytest.mark.parametrize("size", [1e3, 1e6, 5e6, 1e7, 1e9])
def test_the_fewest_readers_that_fill_the_link_fill_it(size):
    readers = formulas.readers_to_fill(size, 0.01, 1e9)
    assert formulas.throughput(size, 0.01, 1e9, readers) == pytest.approx(1e9)
    assert readers == 1 or formulas.throughput(size, 0.01, 1e9, readers - 1) < 1e9 * (1 - 1e-9)


def test_a_code_against_copies():
    assert formulas.storage_factor(1, 2) == 3.0 and formulas.storage_factor(10, 4) == 1.4
    assert formulas.repair_reads(1, 2) == 1 and formulas.repair_reads(10, 4) == 10
    for wrong in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="RS"):
            formulas.storage_factor(*wrong)


@pytest.mark.parametrize(("k", "m"), [(1, 0), (1, 2), (4, 2), (6, 3)])
def test_the_loss_is_that_of_all_cases_counted(k, m):
    lost = 0.1
    counted = sum(
        math.prod(lost if gone else 1 - lost for gone in case)
        for case in itertools.product((False, True), repeat=k + m)
        if sum(case) > m
    )
    assert formulas.loss_probability(k, m, lost) == pytest.approx(counted, rel=1e-12)


def test_fewer_bytes_and_fewer_losses_at_once():
    assert formulas.loss_probability(10, 4, 0.01) < formulas.loss_probability(1, 2, 0.01)


def test_llama_3s_checkpoint_at_the_speed_of_its_storage():
    """405.85 B parameters and Adam's moments in float32; 2 TB/s (Llama Team 2024), and a node at 20 Gbit/s."""
    size = formulas.checkpoint_bytes(405.85e9)
    assert size == pytest.approx(4.87e12, rel=1e-3)
    assert formulas.checkpoint_s(size, store_bytes_per_s=2e12) == pytest.approx(2.435, rel=1e-3)
    one_node = formulas.checkpoint_s(size, store_bytes_per_s=2e12, node_bytes_per_s=2.5e9)
    assert one_node / 60 == pytest.approx(32.5, rel=1e-2)


def test_text_is_cheap_to_read_and_files_are_not():
    assert formulas.feed_bytes_per_s(4e6, 4) == 16e6
    assert formulas.files_per_s(1000) == 1000 and formulas.files_per_s(1000, 500) == 2
