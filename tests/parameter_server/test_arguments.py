"""Arguments that make no sense, and models that differ: said before the first message, by the rank that is wrong."""

import re

import pytest
import torch
import torch.distributed as dist
from small import batches, learn, mlp

from parallel_lab import RankFailed, launch
from parallel_lab import parameter_server as ps
from parallel_lab.synchronization import Asynchronous, Partial, Synchronous

BAD = [  # what, the ranks that say so, the error, its words
    ({"servers": 3}, (0, 1, 2), ValueError, "leaves no worker"),
    ({"servers": 0}, (0, 1, 2), ValueError, "expected at least 1"),
    ({"servers": 1.0}, (0, 1, 2), TypeError, "whole number"),
    ({"rule": Partial(3)}, (0,), ValueError, "there are 2 workers"),
    ({"rule": Synchronous}, (0,), TypeError, "expected a rule"),
    ({"lr": "0.1"}, (0,), TypeError, "expected a number, as in lr"),
    ({"momentum": -1.0}, (0,), ValueError, "Invalid momentum"),
]


def test_arguments_that_make_no_sense():
    def fn():
        said = []
        for options, ranks, error, words in BAD:
            if dist.get_rank() in ranks:
                rule = options.get("rule", Synchronous())
                rest = {name: value for name, value in options.items() if name != "rule"}
                with pytest.raises(error, match=words) as raised:
                    if dist.get_rank() == 0:
                        ps.serve(mlp(), torch.optim.SGD, rule, **rest)
                    else:
                        ps.Worker(mlp(), **rest)
                said.append(str(raised.value))
        return len(said)

    assert launch(fn, ranks=3, timeout=30).results == [7, 3, 3]


def fails(fn, ranks, words, rank, cause="ValueError"):
    with pytest.raises(RankFailed) as raised:
        launch(fn, ranks=ranks, timeout=30)
    assert re.search(words, raised.value.report), raised.value.report
    assert (raised.value.rank, raised.value.cause) == (rank, cause)


def test_workers_with_other_models_are_named():
    def make():
        return mlp((5, 8 if dist.get_rank() == 2 else 7, 3))

    words = r"shape of the parameter '0.weight' is \(8, 5\) here and \(7, 5\) there"
    fails(lambda: learn(Synchronous(), batches(), make=make), 4, words, rank=2)


def test_a_worker_that_pulls_and_pushes_in_no_order_is_told():
    def fn():
        if dist.get_rank() == 0:
            return ps.serve(mlp(), torch.optim.SGD, Asynchronous(), lr=0.1).version
        worker = ps.Worker(mlp())
        with pytest.raises(ValueError, match=r"push\(\) without a pull\(\) before it"):
            worker.push()
        worker.pull()
        for wrong in (worker.pull, worker.finish):
            with pytest.raises(ValueError, match="nothing was pushed since the last pull"):
                wrong()
        for count in (-1, float("nan")):
            with pytest.raises(ValueError, match="expected a finite number of at least 0"):
                worker.push(count)
        worker.push()
        return worker.finish()

    assert launch(fn, ranks=2, timeout=30).results == [1, 1]
