"""What any technique records is a plan, and it ends where one process ends, on the CPU and on a GPU that ranks share.

A plan has each step once, and each message is sent once and received once. Tolerance of the weights: float64, 1e-9
absolute after three steps on weights of order 1. A GPU sums in another order than the CPU and has other exponentials,
so more than the last digits may differ.
"""

from functools import cache

import pytest
import torch
import torch.distributed as dist
from every_technique import ADAM_LIKE, ADAMW, BATCHES, CONFIG, CONFIGS, NEED_TWO, SGD_LIKE, TECHNIQUES, build

from parallel_lab import launch, model
from parallel_lab.plan import PlanError, check_plan
from parallel_lab.runtime import make_mesh, rank_device
from parallel_lab.trace import Trace, recorder

# On a GPU hooks run on a thread of autograd's own.
GPU = {ranks: pytest.param(ranks, "cuda", marks=pytest.mark.gpu) for ranks in (2, 4)}
KINDS = (torch.optim.AdamW, ADAMW, ADAM_LIKE), (torch.optim.SGD, {"lr": 0.1}, SGD_LIKE)


def ran(techniques, make_group, compared):
    """For each technique what this rank recorded, in the order of issue, and how far it ended from one process."""
    group, found = make_group(), {}
    rights = {
        name: model.train(build(config), BATCHES, kind, **options).weights
        for kind, options, alike in KINDS * compared
        for config in (CONFIG, *CONFIGS.values())
        for name in alike
        if CONFIGS.get(name, CONFIG) == config
    }
    for name in techniques:
        before = len(recorder().spans)
        got = TECHNIQUES[name](group)
        dist.barrier()  # a server's last answer is recorded before the next technique begins
        spans = [span for span in recorder().spans[before:] if span.kind != "barrier"]
        found[name] = spans, distance(got, rights[name]) if name in rights else None
    return rank_device().type, found


def distance(got, right):
    """The largest difference of a weight, and whether all weights were there."""
    off = [(got[key] - right[key].to(got[key].device)).abs().max().item() for key in right if key in got]
    return max(off, default=0.0), len(off) == len(right)


@cache
def run(ranks, device):
    """One launch holds every technique; both tests look at it."""
    techniques = [name for name in TECHNIQUES if ranks > 1 or name not in NEED_TWO]
    if device == "cuda":
        techniques.remove("Hogwild")  # its weights lie in memory that processes share, which a GPU's does not
    compared = ranks in (2, 4)
    done = launch(ran, techniques, lambda: dist.group.WORLD, compared, ranks=ranks, device=device, timeout=120)
    assert {type_ for type_, _ in done.results} == {device}
    return [found for _, found in done.results]


def check(results):
    wrong = {}
    for name in results[0]:
        spans = tuple(span for found in results for span in found[name][0])
        assert spans, name
        try:
            check_plan(Trace(len(results), spans).plan())
        except PlanError as error:
            wrong[name] = str(error).partition("\n")[0]
    assert not wrong, f"what is recorded on {len(results)} ranks is no plan: {wrong}"


@pytest.mark.parametrize(("ranks", "device"), [(2, "cpu"), (4, "cpu"), GPU[2], GPU[4]])
def test_ends_where_one_process_ends(ranks, device):
    for rank, found in enumerate(run(ranks, device)):
        for name in ADAM_LIKE | SGD_LIKE:
            off, complete = found[name][1]
            serves = name == "a parameter server" and rank == 0  # a server has its shard alone
            assert off < 1e-9 and (serves or complete), f"{name} on rank {rank}: off by {off}"


@pytest.mark.parametrize(("ranks", "device"), [(1, "cpu"), (2, "cpu"), (3, "cpu"), (4, "cpu"), GPU[2]])
def test_a_run_is_a_plan(ranks, device):
    check(run(ranks, device))


def test_a_run_on_an_axis_of_a_mesh_is_a_plan():
    """Two data-parallel groups of two ranks run side by side; what they send says on which axis."""
    group = lambda: make_mesh(dp=2, tp=2)["dp"].get_group()  # noqa: E731
    results = [found for _, found in launch(ran, list(TECHNIQUES), group, False, ranks=4, timeout=120).results]
    check(results)
    sent = [span for found in results for spans, _ in found.values() for span in spans if span.sent_bytes]
    assert {span.axis for span in sent} == {"dp"}


def test_a_step_recorded_twice_is_no_plan():
    """The test above can fail: one span more, and the trace is no plan."""
    results = [found for _, found in launch(ran, ["DDP"], lambda: dist.group.WORLD, False, ranks=2).results]
    doubled = tuple(span for found in results for span in [*found["DDP"][0], found["DDP"][0][-1]])
    with pytest.raises(PlanError, match="done once"):
        check_plan(Trace(2, doubled).plan())
