"""What stages 1 and 2 record is their plan, at every world and on a mesh; it sends what the formulas say."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.agree.problem import FLAG_BYTES
from parallel_lab.data_parallel import Zero1, Zero2, formulas, zero1, zero2
from parallel_lab.data_parallel.zero_guards import Guards, NoGuards, StepGuards
from parallel_lab.plan import check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.simulate import CostModel, simulate
from parallel_lab.trace import recorder

LAYERS, PSI = 4, 56  # four layers of 56 elements, which 3 ranks have to pad


def chain(norm=False):
    layers = [nn.Linear(7, 7) for _ in range(LAYERS)]
    return nn.Sequential(*layers, *([nn.BatchNorm1d(7, affine=False)] * norm))


def recorded(group, step):
    """What `step` records on this rank, as ops of the rank's place in the group, and the bytes that it sends."""
    first = len(recorder().spans)
    step()
    spans = recorder().spans[first:]
    return [s.op._replace(rank=group.rank()) for s in spans], sum(s.sent_bytes for s in spans)


def stage1(group, guarded):
    """The second step of a model with two dtypes, hence two flat vectors."""
    model = nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 7).double())
    guards = StepGuards if guarded else NoGuards
    optimizer = Zero1(model.parameters(), torch.optim.SGD, lr=0.1, guards=guards, group=group)

    def step():
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()

    step()
    return recorded(group, step)


def stage2(group, guarded, microbatches, no_sync, norm):
    """The second step of `microbatches` backward passes."""
    own = {"guards": Guards if guarded else NoGuards, "group": group}
    model = Zero2(chain(norm), torch.optim.SGD, lr=0.1, bucket_bytes=4 * PSI, **own)

    def step():
        model.zero_grad()
        for k in range(microbatches):
            if no_sync and k + 1 < microbatches:
                with model.no_sync():
                    model(torch.ones(2, 7)).sum().backward()
            else:
                model(torch.ones(2, 7)).sum().backward()
        model.step()

    step()
    return recorded(group, step)


def compare(group, axis):
    """Holds all variants against their plans on this rank of `group`."""
    n, rank = group.size(), group.rank()
    flag = 2 * (n - 1) * FLAG_BYTES // n
    for guarded in (True, False):
        ops, sent = stage1(group, guarded)
        assert tuple(ops) == zero1.plan(n, 2, first=1, guarded=guarded, axis=axis).rows[rank]
        gathered = sum(
            formulas.sent_bytes("zero1", formulas.padded([PSI], n), n, size)
            - formulas.sent_bytes("ddp", formulas.padded([PSI], n), n, size)
            for size in (4, 8)
        )
        assert sent == gathered + flag * guarded
        for m, no_sync, norm in ((1, False, True), (3, False, False), (3, True, False)):
            ops, sent = stage2(group, guarded, m, no_sync, norm)
            own = {"microbatches": m, "first": m, "no_sync": no_sync, "broadcasts": 2 * norm, "guarded": guarded}
            assert tuple(ops) == zero2.plan(n, LAYERS, axis=axis, **own).rows[rank]
            if not norm:
                psi = formulas.padded([PSI] * LAYERS, n)
                flags = (1 + (1 if no_sync else m)) * guarded
                assert sent == formulas.sent_bytes("zero2", psi, n, 4, m, no_sync) + flags * flag


def test_the_trace_is_the_plan_and_sends_its_bytes():
    def fn():
        for n in (1, 2, 3):
            group = dist.new_group(range(n))
            if dist.get_rank() < n:
                compare(group, axis_of(group))
        compare(dist.group.WORLD, "")
        mesh = make_mesh(dp=2, tp=2)
        compare(mesh.get_group("dp"), axis_of(mesh.get_group("dp")))
        return axis_of(mesh.get_group("dp"))

    assert launch(fn, ranks=4)[0] in ("", "dp")


def axis_of(group):
    """The name that the door gives to the group's axis."""
    return getattr(group, "axis", "")


def test_several_steps_with_their_set_up_are_a_plan():
    def both():
        model = Zero2(chain(norm=True), torch.optim.SGD, lr=0.1, bucket_bytes=4 * PSI)
        for _ in range(3):
            model(torch.ones(2, 7)).sum().backward()
            model.step()

    def first():
        model = nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 7).double())
        optimizer = Zero1(model.parameters(), torch.optim.SGD, lr=0.1)
        for _ in range(3):
            optimizer.step()

    for fn in (both, first):
        check_plan(launch(fn, ranks=2).trace.plan())


class Cost(CostModel):
    def seconds(self, op):
        return {"F": 1.0, "B": 1.0, "reduce_scatter": 1.0, "all_gather": 1.0}.get(op.kind, 0.0)


def test_the_plans_can_be_carried_out_and_overlap():
    for n in (1, 2, 5):
        check_plan(zero1.plan(n, 3))
        for no_sync in (False, True):
            check_plan(zero2.plan(n, 3, microbatches=2, no_sync=no_sync, broadcasts=2))
    # One forward pass, four backward parts, a reduce-scatter that nothing hides, and the gathers.
    assert simulate(zero2.plan(2, 4), Cost()).duration_s == 1 + 4 + 1 + 4


@pytest.mark.parametrize(("make", "arguments"), [(zero1.plan, (0,)), (zero1.plan, (2, 0)), (zero2.plan, (2, 0))])
def test_nonsense_is_refused(make, arguments):
    with pytest.raises(ValueError, match="expected at least"):
        make(*arguments)
