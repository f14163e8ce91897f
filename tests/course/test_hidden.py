"""Numbers outside tensors are counted wherever Python can reach them; what every program has counts as nothing."""

import gc
import importlib

import numpy as np
import pytest
import torch

from parallel_lab import launch
from parallel_lab.course.hidden import SMALL_BYTES, Watch

OLDER = {}
COUNT = 1000


def looked(make):
    """What a watch sees in a rank of what `make` returns."""

    def rank():
        gc.freeze()
        watch = Watch(make)
        kept = [make()]
        gc.collect()  # from now on tuples and dicts of plain values are not tracked
        return watch.look(), len(kept)

    return tuple(launch(rank, ranks=1)[0][0])


def test_a_float_counts_what_it_takes_in_a_tensor():
    assert looked(lambda: {"part": [float(i) for i in range(COUNT)]}) == (8 * COUNT, "float")


def test_floats_in_tuples_and_dicts_that_the_collector_does_not_track():
    assert looked(lambda: tuple((i + 0.25, {"b": i + 0.5}) for i in range(COUNT))) == (16 * COUNT, "float")


def of_one_array():
    whole = np.ones(COUNT)
    return [whole, whole[:2], memoryview(whole)]


def view_alone():
    return [np.ones(COUNT)[:2]]


@pytest.mark.parametrize("make", [of_one_array, view_alone])
def test_a_view_counts_all_that_it_keeps_alive_and_once(make):
    assert looked(make) == (8 * COUNT, "ndarray")


def test_what_lies_in_a_global_older_than_the_watch():
    assert looked(lambda: OLDER.update(state=bytes(8 * COUNT))) == (8 * COUNT, "bytes")


def tensor_and_arrays():
    tensor = torch.ones(COUNT)
    return [tensor, tensor.numpy(), tensor.numpy()[3:]]


def small_things():
    def documented():
        return None

    documented.__doc__ = "x" * 10 * SMALL_BYTES
    return [0.1, 0.9, *range(COUNT, 2 * COUNT), documented]


def imported():
    return importlib.import_module("torch.distributed.checkpoint")


@pytest.mark.parametrize("make", [tensor_and_arrays, small_things, imported])
def test_what_counts_as_nothing(make):
    assert looked(make) == (0, "")
