"""What an answer may not use: found by name in what it would take along to the ranks, whatever way it goes there."""

import functools
import re
import sys
import tomllib
from pathlib import Path

import cloudpickle
import pytest
import torch.nn as nn
from torch.distributed.fsdp import fully_shard

import parallel_lab.collectives
from parallel_lab import collectives
from parallel_lab.grading import references
from parallel_lab.grading.references import reference_in

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def honest(tensor):
    """Names collectives, and reaches none: parallel_lab.collectives, DistributedDataParallel."""
    return helper(tensor)


def helper(tensor):
    return honest(tensor) if tensor else sum([tensor])


def by_module(tensor):
    return collectives.all_reduce(tensor)


def by_helper(tensor):
    return by_module(tensor)


def by_package(tensor):
    return parallel_lab.collectives.all_reduce(tensor)


def by_inner_import(tensor):
    from parallel_lab.collectives import ring  # noqa: PLC0415

    return ring.all_reduce_plan(tensor)


def by_closure():
    module = collectives
    return lambda tensor: module.all_reduce(tensor)


class Caller:
    def __call__(self, tensor):
        return collectives.all_reduce(tensor)


def torchs(model):
    return nn.parallel.DistributedDataParallel(model)


def torchs_by_name(model):
    return fully_shard(model)


@pytest.mark.parametrize(
    "answer",
    [by_module, by_helper, by_package, by_inner_import, by_closure(), Caller(), functools.partial(by_module, 1)],
    ids=["module", "helper", "package", "inner import", "closure", "class", "partial"],
)
def test_ways_to_a_technique_are_found(answer):
    assert "uses parallel_lab.collectives" in reference_in(answer)


def test_ready_made_classes_of_torch_are_found():
    assert reference_in(torchs) == "torchs uses DistributedDataParallel"
    assert reference_in(torchs_by_name) == "torchs_by_name uses fully_shard"


def test_honest_code_is_left_alone():
    assert reference_in(honest) == "" == reference_in(len)


def test_what_a_rank_loads_is_told_by_its_room():
    assert references.loaded(["parallel_lab.trace.span", "parallel_lab.collectives.ring", "torch"]) == [
        "parallel_lab.collectives"
    ]


def test_every_technique_of_the_layers_is_a_reference_and_nothing_else():
    contracts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    rooms = [room for layer in layers for room in re.split(r" [|:] ", layer)]
    above, below = layers.index("grading"), layers.index("agree")
    between = [room for layer in layers[above + 1 : below] for room in re.split(r" [|:] ", layer)]
    known = {room for room in rooms if references.technique(f"parallel_lab.{room}")}
    assert known - {"synchronisation"} == set(between) - {"clinic"}  # jobs, and no technique
