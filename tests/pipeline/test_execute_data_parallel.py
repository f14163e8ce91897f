"""DDP, Zero1, Zero2 and Zero3 around a stage, on 2 x 2 ranks, for every schedule; and what PyTorch makes of it."""

import sys

import cloudpickle
import pytest
import torch
from chains import SCHEDULES, alone, chain, data, gap, microbatches_of, own, squares
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import ScheduleInterleavedZeroBubble
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import RankFailed, launch, pipeline
from parallel_lab.data_parallel import DDP, Zero1, Zero2, Zero3
from parallel_lab.pipeline import Stage, step
from parallel_lab.runtime import make_mesh

cloudpickle.register_pickle_by_value(sys.modules[__name__])

STEPS = 2


SGD = {"lr": 0.5, "momentum": 0.9}  # unlike Adam, it does not hide a factor


def sgd(params):
    return torch.optim.SGD(params, **SGD)


def wrapped(kind, module, group):
    """The module around which a pipeline runs, and what steps it."""
    if kind == "zero2":
        both = Zero2(module, torch.optim.SGD, **SGD, group=group)
        return both, both
    if kind == "zero3":
        zero = Zero3(module, group=group)
        return zero, sgd(zero.parameters())
    ddp = DDP(module, bucket_bytes=600, group=group)
    if kind == "zero1":
        return ddp, Zero1(module.parameters(), torch.optim.SGD, **SGD, group=group)
    return ddp, sgd(module.parameters())


def trained(kind, names, recompute):
    """The largest difference of a weight from one process after some steps, and the all-reduces, by schedule."""
    mesh = make_mesh(dp=2, pp=2)
    dp, pp = mesh["dp"].get_group(), mesh["pp"].get_group()
    found = {}
    for name in names:
        plan = SCHEDULES[name](2, 3)
        modules, reference = (chain(len(pipeline.placement(plan))) for _ in range(2))
        mine = own(plan, modules, pp)
        parts = {s: wrapped(kind, module, dp) for s, module in mine.items()}
        stages = {s: Stage(module, recompute=recompute) for s, (module, _) in parts.items()}
        theirs = sgd([p for module in reference for p in module.parameters()])
        for number in range(STEPS):
            shares = [
                data(microbatches_of(plan), seed=10 * number + share, rows=(1 + share, 2, 3)) for share in range(2)
            ]
            terms = sum(t.numel() for _, targets in shares for t in targets)
            step(plan, stages, *shares[dp.rank()], squares, count=terms / 2, group=pp)
            _, graded = alone(reference, [x for xs, _ in shares for x in xs], [t for _, ts in shares for t in ts])
            for module, with_gradients in zip(reference, graded, strict=True):
                for p, q in zip(module.parameters(), with_gradients.parameters(), strict=True):
                    p.grad = q.grad
            for _, optimizer in [*parts.values(), (None, theirs)]:
                optimizer.step()
                optimizer.zero_grad()
        whole = {
            s: module.full_state_dict() if kind == "zero3" else modules[s].state_dict()
            for s, (module, _) in parts.items()
        }
        found[name] = max(
            float((whole[s][key] - value).abs().max()) for s in mine for key, value in reference[s].state_dict().items()
        )
    return found


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["ddp", "zero1", "zero2", "zero3"])
def test_weights_end_where_those_of_one_process_do(kind, recompute):
    names = list(SCHEDULES) if not recompute else ["one_f_one_b", "zb_v"]
    for found in launch(trained, kind, names, recompute, ranks=4):
        assert found.keys() == set(names)
        assert {name: gap for name, gap in found.items() if gap > 1e-10} == {}


def torch_ddp():
    """One step of PyTorch's ZB-H1 with its DDP around the stages: how far gradients are from those of one process."""
    mesh = make_mesh(dp=2, pp=2)
    dp, pp = mesh["dp"].get_group(), mesh["pp"].get_group()
    modules = chain(2)
    shares = [data(4, seed=share, rows=(2,)) for share in range(2)]
    terms = sum(t.numel() for _, targets in shares for t in targets)
    _, reference = alone(modules, [x for xs, _ in shares for x in xs], [t for _, ts in shares for t in ts])
    inputs, targets = shares[dp.rank()]
    net = DistributedDataParallel(modules[pp.rank()], process_group=dp)
    stage = PipelineStage(net, pp.rank(), 2, torch.device("cpu"), group=pp)
    loss = lambda y, target: squares(y, target) / (terms / 2)  # noqa: E731
    schedule = ScheduleInterleavedZeroBubble([stage], 4, loss_fn=loss, scale_grads=False)
    schedule.step(*[torch.cat(inputs)] * (pp.rank() == 0), **({"target": torch.cat(targets)} if pp.rank() else {}))
    return gap({pp.rank(): modules[pp.rank()]}, reference)


def test_pytorch_s_own_are_wrong_without_a_word():
    """If this fails, torch averages now (pytorch#144530), and the pages that say otherwise are to be changed."""
    gaps = launch(torch_ddp, ranks=4).results
    assert max(gaps) > 1e-3


def refused():
    net = DistributedDataParallel(chain(1)[0])
    step(pipeline.gpipe(1, 1), net, [torch.ones(1, 6).double()], [torch.ones(1, 6).double()], squares)


def test_pytorch_s_ddp_around_a_stage_is_refused():
    with pytest.raises(
        RankFailed, match="rank 0: stage 0 is a DistributedDataParallel of PyTorch, which does not know"
    ):
        launch(refused, ranks=1)


def traffic():
    """The bytes of gradients that a rank's stages have, after two steps of each schedule with DDP."""
    mesh = make_mesh(dp=2, pp=2)
    dp, pp = mesh["dp"].get_group(), mesh["pp"].get_group()
    total = 0
    for schedule in SCHEDULES.values():
        plan = schedule(2, 3)
        mine = own(plan, chain(len(pipeline.placement(plan))), pp)
        stages = {s: DDP(module, group=dp) for s, module in mine.items()}
        for _ in range(2):
            step(plan, stages, *data(microbatches_of(plan)), squares, group=pp)
        total += 2 * sum(p.nbytes for module in mine.values() for p in module.parameters())
    return total


def test_gradients_are_averaged_once_a_step():
    run = launch(traffic, ranks=4)
    for rank, total in enumerate(run):
        means = [s for s in run.trace.of(rank) if s.axis == "dp" and s.kind == "all_reduce" and s.phase == "backward"]
        assert sum(s.sent_bytes for s in means) == total  # a ring of two: 2 (n-1)/n = 1 times the gradients
