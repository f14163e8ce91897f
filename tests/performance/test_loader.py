"""Batches come in their order, ahead of their use, and a wait is recorded; a broken loader says so where it is due."""

import threading

import pytest
import torch

from parallel_lab.performance import Breakdown, Prefetcher
from parallel_lab.performance.loader import step_s
from parallel_lab.trace import Recorder, install, span


def test_the_order_is_that_of_the_items_whatever_the_threads():
    barrier = threading.Barrier(3)

    def load(item):
        if item < 3:
            barrier.wait(timeout=60)  # three at once, or the barrier breaks
        return item * torch.ones(2)

    for ahead, threads in ((3, 3), (5, 4)):
        found = [batch[0].item() for batch in Prefetcher(range(12), load, ahead=ahead, threads=threads)]
        assert found == list(range(12))
    assert list(Prefetcher(iter("abc"))) == ["a", "b", "c"]
    assert list(Prefetcher([])) == []


def test_no_more_than_ahead_are_loaded_before_they_are_asked_for():
    loaded = []

    def load(item):
        loaded.append(item)
        return item

    prefetcher = Prefetcher(range(10), load, ahead=3, threads=2)
    for asked, _ in enumerate(prefetcher, 1):
        assert len(loaded) <= asked + 3
    assert sorted(loaded) == list(range(10))


def test_it_loads_while_the_rank_computes():
    """Each batch is made while the one before is in use: the rank waits for the loader's sign, not for the clock."""
    made = [threading.Event() for _ in range(4)]

    def load(item):
        made[item].set()
        return item

    for item in Prefetcher(range(4), load, ahead=1):
        assert all(event.wait(timeout=60) for event in made[: item + 2])


def test_waits_are_spans_of_the_kind_data():
    old = install(Recorder(enabled=True))
    try:
        prefetcher = Prefetcher(range(3), lambda item: item)
        for number, _ in enumerate(prefetcher):
            with span("F", mb=number):
                pass
    finally:
        recorder = install(old)
    trace = recorder.trace(1)
    waits = [s for s in trace.spans if s.kind == "data"]
    assert [s.part for s in waits] == [0, 1, 2] and len([s for s in trace.spans if s.kind == "F"]) == 3
    assert prefetcher.waited_s >= sum(s.end_s - s.start_s for s in waits) > 0
    assert Breakdown.of(trace).seconds("data") > 0


def test_an_error_is_raised_where_its_batch_was_due_and_threads_end():
    def load(item):
        if item == 2:
            raise OSError("the disk is gone")
        return item

    before, seen = threading.active_count(), []
    with pytest.raises(OSError, match="the disk is gone"):
        seen += Prefetcher(range(5), load)
    for batch in Prefetcher(range(5), lambda item: item, threads=2, ahead=4):
        if batch == 1:
            break
    assert seen == [] or seen == [0, 1]
    assert threading.active_count() == before


@pytest.mark.parametrize("options", [{"ahead": 0}, {"threads": 0}, {"threads": 2}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ValueError, match="expected at least 1 of each, and a function `load`"):
        Prefetcher(range(3), **options)


def test_structures_keep_their_form_on_the_way_to_a_device():
    batch = {"x": torch.ones(2), "y": [torch.zeros(1), "name"], "z": (torch.ones(1), 3)}
    (found,) = Prefetcher([batch], device="cpu")
    assert torch.equal(found["x"], batch["x"]) and found["y"][1] == "name" and found["z"][1] == 3


def test_the_step_of_a_loader_in_the_long_run():
    assert step_s(3.0, 2.0) == 5.0
    assert step_s(3.0, 2.0, 1) == 3.0 and step_s(3.0, 2.0, 2) == 2.0
