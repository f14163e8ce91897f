"""What stage 3 records is its plan, and it sends and holds what its formulas say."""

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.agree.problem import FLAG_BYTES
from parallel_lab.data_parallel import Zero3, formulas, zero3
from parallel_lab.data_parallel.units import padded
from parallel_lab.model import GPTConfig, build, loss
from parallel_lab.model.data import text_batches
from parallel_lab.plan import Plan, check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.simulate import CostModel, simulate
from parallel_lab.trace import recorder

WIDTHS = (6, 6, 12, 17, 6, 6)  # units of different sizes, and rows that no number of ranks divides evenly
UNITS = len(WIDTHS) - 1
SHAPES = [shape for a, b in pairwise(WIDTHS) for shape in ((b, a), (b,))]


class Chain(nn.Module):
    """A chain of units, with a root at both ends if asked for."""

    def __init__(self, root):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(WIDTHS))
        self.scale = nn.Parameter(torch.ones(3)) if root else None

    def forward(self, x):
        x = x if self.scale is None else x * self.scale.mean()
        for layer in self.layers:
            x = layer(x)
        return x if self.scale is None else x + self.scale.sum()


def steps(group=None, count=1, no_sync=False, root=False, **settings):
    """`count` microbatches; returns what this rank recorded of them, as ops, and the bytes that it sent."""
    model = Zero3(Chain(root), group=group, **settings)
    model.full_state_dict()  # its collectives belong to no step
    dist.barrier(group if isinstance(group, dist.ProcessGroup) else None)
    start = len(recorder().spans)
    for mb in range(count):
        model.set_requires_gradient_sync(not no_sync or mb + 1 == count)
        model(torch.ones(1, WIDTHS[0])).sum().backward()
    spans = recorder().spans[start:]
    return [span.op for span in spans], sum(span.sent_bytes for span in spans)


SETTINGS = [
    {},
    {"prefetch": 0},
    {"prefetch": 2, "count": 2},
    {"prefetch": 7, "root": True},
    {"reshard_after_forward": False, "root": True},
    {"count": 3, "no_sync": True, "check_finite": False},
]


def planned(n, count=1, no_sync=False, root=False, check_finite=True, prefetch=1, reshard_after_forward=True, **more):
    return zero3.plan(
        n,
        UNITS,
        prefetch=prefetch,
        reshard_after_forward=reshard_after_forward,
        root=root,
        microbatches=count,
        no_sync=no_sync,
        guarded=check_finite,
        **more,
    )


def test_a_recorded_step_is_the_plan_and_sends_what_the_formula_says():
    def fn():
        worlds = {}
        for n in range(1, 5):
            group = dist.new_group(range(n), group_desc="zero")
            if dist.get_rank() < n:
                worlds[n] = [steps(group, **each) for each in (SETTINGS if n == 3 else SETTINGS[:1])]
        mesh = make_mesh(dp=2, tp=2)
        return worlds, steps(mesh["dp"]), steps(make_mesh(replicate=2, shard=2), root=True, count=2)

    results = launch(fn, ranks=4).results
    for n in range(1, 5):
        for k, settings in enumerate(SETTINGS if n == 3 else SETTINGS[:1]):
            plan = planned(n, **settings, axis="zero")
            check_plan(plan)
            recorded = [results[rank][0][n][k] for rank in range(n)]
            assert [tuple(ops) for ops, _ in recorded] == list(plan.rows), (n, settings)
            assert {sent for _, sent in recorded} == {formula(n, **settings)}, (n, settings)
    hybrid = planned(2, root=True, count=2, replicas=2, axis="shard", replicate_axis="replicate")
    check_plan(hybrid)
    assert [tuple(r[2][0]) for r in results] == list(hybrid.rows)
    for replicas in ((0, 2), (1, 3)):  # the ranks along dp
        plan = planned(2, axis="dp")
        ops = [results[rank][1][0] for rank in replicas]
        assert [tuple(op._replace(rank=k) for op in row) for k, row in enumerate(ops)] == list(plan.rows)


def formula(n, count=1, no_sync=False, root=False, check_finite=True, reshard_after_forward=True, **_):
    """3 (n-1)/n Psi, of which a unit that stays unsharded saves one third; and the flag."""
    psi, kept = padded(SHAPES, n), padded([(3,)], n) * root
    if not reshard_after_forward:
        kept += psi
    psi += padded([(3,)], n) * root
    sent = formulas.sent_bytes("zero3", psi, n, 4, microbatches=count, no_sync=no_sync, kept=kept)
    flags = (1 if no_sync else count) * check_finite
    return sent + flags * (2 * (n - 1) * FLAG_BYTES // n)


def test_resharding_to_fewer_ranks_gathers_from_them_in_the_backward_pass():
    def fn():
        return steps(make_mesh(dp=4), reshard_after_forward=2, check_finite=False)

    psi = padded(SHAPES, 4)
    for ops, sent in launch(fn, ranks=4).results:
        assert [op._replace(axis="", rank=0) for op in ops] == list(planned(4, check_finite=False).rows[0])
        assert sent == 4 * (2 * 3 * psi // 4 + psi // 2)


def test_dtypes_on_the_wire():
    def fn():
        sent = []
        x, y = next(iter(text_batches(8, 4, 1)))
        for settings in (
            {},
            {"compute_dtype": torch.bfloat16},
            {"compute_dtype": torch.bfloat16, "reduce_dtype": torch.float32},
        ):
            model = Zero3(build(GPTConfig(seq=8, width=12, heads=2, layers=3)), check_finite=False, **settings)
            start = len(recorder().spans)
            loss(model(x), y).backward()
            sent.append(sum(span.sent_bytes for span in recorder().spans[start:]))
        slots = [[slot.shape for slot in unit.slots] for unit in model.units]
        return sent, slots, model.module.head.norm.weight.grad.dtype

    sent, shapes, dtype = launch(fn, ranks=2)[0]
    psi, kept = padded([s for unit in shapes for s in unit], 2), padded(shapes[-1], 2)
    assert sent[0] == formulas.sent_bytes("zero3", psi, 2, 4, kept=kept) and dtype == torch.float32
    assert sent[1] == sent[0] // 2
    assert sent[2] == sent[1] + psi // 2 * 2  # gradients twice as wide


@pytest.mark.parametrize(("n", "units", "prefetch"), [(1, 1, 0), (2, 3, 0), (4, 8, 1), (3, 5, 2), (2, 4, 9)])
def test_the_plan_can_be_carried_out(n, units, prefetch):
    plan = zero3.plan(n, units, prefetch=prefetch, microbatches=2, root=True)
    check_plan(plan)
    for row in plan.rows:
        there, most = set(), 0
        for op in row:
            if op.kind == "all_gather" and op.part < units:
                there.add(op.part)
                most = max(most, len(there))
            if op.kind in ("F", "B"):
                there.remove(op.part)  # KeyError if it was not gathered
        assert not there and most == min(units, 1 + prefetch)


def test_prefetch_hides_the_gathers():
    class Fixed(CostModel):
        def seconds(self, op):
            return {"F": 1.0, "B": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}.get(op.kind, 0.0)

    def duration(prefetch):
        return simulate(zero3.plan(2, 8, prefetch=prefetch), Fixed()).duration_s

    assert duration(1) < duration(0)
    assert duration(0) >= 8 * (1 + 2) + 16  # without it, computing waits for each gather


@pytest.mark.parametrize("wrong", [{"n": 0}, {"units": 0}, {"prefetch": -1}, {"microbatches": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="expected at least"):
        zero3.plan(**({"n": 2, "units": 2} | wrong))
    assert isinstance(zero3.plan(2, 2), Plan)
