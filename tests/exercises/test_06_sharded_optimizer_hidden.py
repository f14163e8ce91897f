"""`sharded_optimizer`: who keeps all state on every rank, but not in tensors, is found out with the place named.

Each cheat is right in every number: an optimizer over all parameters, whose state is put away between two steps.
"""

import array
import ctypes
import io
import json
import multiprocessing
import os
import pickle
import socket
import sqlite3
import sys
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
import torch
import torch.distributed as dist
from flat_optimizer import Flat, gather_parts
from grading import assert_passes

from parallel_lab.course.checks import grade
from parallel_lab.grading.exercises import EXERCISES

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "sharded_optimizer"
OLDER = {}  # older than the answer, as a notebook's global is


class Hiding:
    """Puts `state`, a list of a dict of tensors a parameter, away after each step; a shard is gathered for show."""

    def __init__(self, params, optimizer_class, options, put, take):
        self.params, self.put, self.take, self.away = list(params), put, take, None
        self.whole = optimizer_class(self.params, **options)
        self.shown = Flat(self.params, optimizer_class, {"lr": 0.0})

    def zero_grad(self):
        self.whole.zero_grad()

    def step(self):
        if self.away is not None:
            self.whole.state.update(zip(self.params, self.take(self.away), strict=True))
        self.whole.step()
        self.away = self.put([dict(self.whole.state[p]) for p in self.params])
        self.whole.state.clear()
        gather_parts(self.shown.shard, self.shown.n)


def each(change):
    """`change` of every tensor of a state."""
    return lambda state: [{name: change(value) for name, value in one.items()} for one in state]


def from_lists(state):
    return each(lambda numbers: torch.tensor(numbers, dtype=torch.float64))(state)


def listed(state):
    return each(torch.Tensor.tolist)(state)


def pickled(state):
    return pickle.dumps(each(torch.Tensor.numpy)(state))


def unpickled(kept):
    return each(torch.as_tensor)(pickle.loads(kept))


AVERAGES = ("exp_avg", "exp_avg_sq")


def in_pairs(state):
    """A tuple for each element, as of an optimizer written without tensors."""
    kept = []
    for one in state:
        columns = [one[name].flatten().tolist() for name in AVERAGES]
        kept.append((one["step"].item(), one["exp_avg"].shape, list(zip(*columns, strict=True))))
    return kept


def from_pairs(kept):
    for step, shape, pairs in kept:
        averages = [torch.tensor(column, dtype=torch.float64).view(shape) for column in zip(*pairs, strict=True)]
        yield {"step": torch.tensor(step), **dict(zip(AVERAGES, averages, strict=True))}


def saved(state):
    torch.save(state, file := io.BytesIO())
    return file


def loaded(file):
    file.seek(0)
    return torch.load(file)


def to_integers(state):
    return [
        {name: (value.shape, value.double().reshape(-1).view(torch.int64).tolist()) for name, value in one.items()}
        for one in state
    ]


def from_integers(state):
    return each(lambda kept: torch.tensor(kept[1]).view(torch.float64).view(kept[0]))(state)


def to_older(state):
    OLDER["state"] = pickled(state)
    return OLDER


def to_ctypes(state):
    kept = pickled(state)
    return (ctypes.c_char * len(kept)).from_buffer_copy(kept)


HIDDEN = {  # the class that holds most of it: how the state is put away, and how it is taken back
    "float, in lists": (listed, from_lists),
    "float, in pairs": (in_pairs, from_pairs),
    "int": (to_integers, from_integers),
    "str": (lambda state: json.dumps(listed(state)), lambda kept: from_lists(json.loads(kept))),
    "bytes": (pickled, unpickled),
    "bytes, in an older global": (to_older, lambda kept: unpickled(kept["state"])),
    "bytes, under a memoryview": (lambda state: memoryview(pickled(state)), unpickled),
    "BytesIO": (saved, loaded),
    "array": (lambda state: array.array("B", pickled(state)), unpickled),
    "c_char_Array": (to_ctypes, lambda kept: unpickled(bytes(kept))),
    "ndarray": (each(lambda t: t.numpy().copy()), each(torch.from_numpy)),
    "ndarray, a view": (each(lambda t: t.numpy().copy()[...]), each(torch.from_numpy)),
}


def graded(put, take):
    def answer(params, optimizer_class, **options):
        return Hiding(params, optimizer_class, options, put, take)

    exercise = EXERCISES[NAME]
    telling = tuple(one for one in exercise.tests if one.__name__ in ("uneven", "held"))
    return grade(replace(exercise, tests=telling), answer, save=False)


@pytest.mark.parametrize("kind", HIDDEN)
def test_state_outside_tensors_counts(kind):
    report = graded(*HIDDEN[kind])
    assert report.score == 0.5, repr(report)  # the numbers are right
    name = kind.split(",")[0]
    assert "at 3 ranks: rank 0, beside parameters and gradients, holds" in repr(report)
    assert "of it lie outside tensors, in objects of class " + name in repr(report), repr(report)


def to_file(state):
    torch.save(state, "/tmp/parallel-lab-cheat.pt")


def to_database(state):
    return sqlite3.connect("/tmp/parallel-lab-cheat.db")


def to_array_file(state):
    np.save("/tmp/parallel-lab-cheat.npy", state[0]["exp_avg"].numpy())


def to_child(state):
    return os.fork()


def to_helper(state):
    return multiprocessing.Pool(1)


def to_store(state):
    store = dist.distributed_c10d._get_default_store()
    for k, one in enumerate(state):
        for name, tensor in one.items():
            for i, number in enumerate(tensor.flatten().tolist()):  # in small pieces
                store.set(f"{k}/{name}/{i}", str(number))


def to_mapped_file(state):
    return torch.from_file("/tmp/parallel-lab-cheat.bin", shared=True, size=1000)


def to_mapped_storage(state):
    return torch.UntypedStorage.from_file("/tmp/parallel-lab-cheat.bin", True, 1000)


def to_file_in_memory(state):
    return os.memfd_create("cheat")


def to_pipe(state):
    return os.pipe()


def to_socket(state):
    return socket.socketpair()


OUTSIDE = {
    to_store: "store('",
    to_mapped_file: "open('/tmp/parallel-lab-cheat.bin')",
    to_mapped_storage: "open('/tmp/parallel-lab-cheat.bin')",
    to_file_in_memory: "os.memfd_create",
    to_pipe: "os.pipe",
    to_socket: "socket.__new__",
    to_file: "open('/tmp/parallel-lab-cheat.pt')",
    to_database: "sqlite3.connect('/tmp/parallel-lab-cheat.db')",
    to_array_file: "open('/tmp/parallel-lab-cheat.npy')",
    to_child: "os.fork",
    to_helper: "",
}


@pytest.mark.parametrize("put", OUTSIDE, ids=lambda put: put.__name__)
def test_state_outside_the_process_is_refused(put):
    report = graded(put, lambda kept: kept)
    assert report.score == 0
    assert f"SideDoor: {OUTSIDE[put]}" in repr(report), repr(report)
    assert "data may leave a rank only by messages of the process group" in repr(report)


@pytest.mark.parametrize("kind", ["float, in lists", "bytes", "array", "ndarray"])
def test_a_shard_may_be_kept_in_anything(kind):
    put, take = HIDDEN[kind]

    class Offloading(Flat):
        """Not a cheat: this rank's part of the state alone, put away between two steps."""

        away = None

        def step(self):
            if self.away is not None:
                (self.inner.state[self.shard],) = take(self.away)
            super().step()
            self.away = put([dict(self.inner.state[self.shard])])
            self.inner.state.clear()

    def answer(params, optimizer_class, **options):
        return Offloading(params, optimizer_class, options)

    assert_passes(NAME, answer)
