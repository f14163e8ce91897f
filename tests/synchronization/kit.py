"""What these tests share: a small model in float64, worlds of 1 to 4 ranks in one launch, and what was recorded."""

import sys

import cloudpickle
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.model import build
from parallel_lab.plan import COMPUTE, Plan
from parallel_lab.trace import recorder, tag

# Ranks get these helpers as copies: importing a file of tests there would load scikit-learn and pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

F64 = torch.float64
WIDTHS = (64, 8, 10)
PARAMETERS = 64 * 8 + 8 + 8 * 10 + 10


def model(seed=0):
    return build(WIDTHS, seed, F64)


def same(weights, oracle, tolerance=1e-12):
    assert weights.keys() == oracle.keys()
    for name in oracle:
        torch.testing.assert_close(weights[name], oracle[name], rtol=1e-12, atol=tolerance)


def worlds(fn, sizes=(1, 2, 3, 4)):
    """`fn(group)` on the members of each world, all in one launch: for each size the results of its ranks."""

    def every():
        groups = {size: dist.new_group(list(range(size))) for size in sizes}
        return {size: fn(group) for size, group in groups.items() if dist.get_rank() < size}

    results = launch(every, ranks=max(sizes), timeout=60).results
    return {size: [results[rank][size] for rank in range(size)] for size in sizes}


def steps_of(fn, **names):
    """What `fn` returns, and the ops that it recorded on this rank, tagged with `names`.

    A message without a phase belongs to no step: the ranks agree on a model. A delay is a fault that a test injects.
    """
    before = len(recorder().spans)
    with tag(**names):
        result = fn()
    spans = [
        span for span in recorder().spans[before:] if (span.phase or span.lane == COMPUTE) and span.kind != "delay"
    ]
    return result, [span.op for span in spans]


def recorded(rows):
    """The plan of what ranks recorded."""
    return Plan.of([op for row in rows for op in row], ranks=len(rows))


def said(fn):
    """The error of `fn` in words; empty if there is none."""
    try:
        fn()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
