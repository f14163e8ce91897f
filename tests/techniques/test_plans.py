"""What any technique records is a plan: each step stands once, and each message is sent once and received once."""

import pytest
import torch.distributed as dist
from every_technique import NEED_TWO, TECHNIQUES

from parallel_lab import launch
from parallel_lab.plan import PlanError, check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.trace import Trace, recorder


def recorded(techniques, make_group):
    """For each technique the spans that this rank recorded while it ran, in the order of issue."""
    group, found = make_group(), {}
    for name in techniques:
        before = len(recorder().spans)
        TECHNIQUES[name](group)
        dist.barrier()  # a server's last answer is recorded before the next technique begins
        found[name] = [span for span in recorder().spans[before:] if span.kind != "barrier"]
    return found


def check(run, techniques):
    wrong = {}
    for name in techniques:
        spans = tuple(span for result in run.results for span in result[name])
        assert spans, name
        try:
            check_plan(Trace(len(run.results), spans).plan())
        except PlanError as error:
            wrong[name] = str(error).partition("\n")[0]
    assert not wrong, f"what is recorded on {len(run.results)} ranks is no plan: {wrong}"


ON_A_GPU = pytest.param(2, "cuda", marks=pytest.mark.gpu)  # where hooks run on a thread of autograd's own


@pytest.mark.parametrize(("ranks", "device"), [(1, "cpu"), (2, "cpu"), (3, "cpu"), (4, "cpu"), ON_A_GPU])
def test_a_run_is_a_plan(ranks, device):
    techniques = [name for name in TECHNIQUES if ranks > 1 or name not in NEED_TWO]
    if device == "cuda":
        techniques.remove("Hogwild")  # its weights lie in memory that processes share, which a GPU's does not
    run = launch(recorded, techniques, lambda: dist.group.WORLD, ranks=ranks, device=device, timeout=120)
    check(run, techniques)


def test_a_run_on_an_axis_of_a_mesh_is_a_plan():
    """Two data-parallel groups of two ranks run side by side; what they send says on which axis."""
    techniques = list(TECHNIQUES)
    run = launch(recorded, techniques, lambda: make_mesh(dp=2, tp=2)["dp"].get_group(), ranks=4, timeout=120)
    check(run, techniques)
    sent = [span for result in run.results for spans in result.values() for span in spans if span.sent_bytes]
    assert {span.axis for span in sent} == {"dp"}


def test_a_step_recorded_twice_is_no_plan():
    """The test above can fail: one span more, and the trace is no plan."""
    spans = launch(recorded, ["DDP"], lambda: dist.group.WORLD, ranks=2).results
    doubled = tuple(span for result in spans for span in [*result["DDP"], result["DDP"][-1]])
    with pytest.raises(PlanError, match="done once"):
        check_plan(Trace(2, doubled).plan())
