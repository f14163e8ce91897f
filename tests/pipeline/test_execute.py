"""The executor against one process, in float64: every plan, at 1 to 4 ranks, with microbatches of uneven sizes."""

import sys
from itertools import product

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from chains import SCHEDULES, alone, chain, clear, data, gap, microbatches_of, own, squares

from parallel_lab import launch, pipeline
from parallel_lab.pipeline import repeated, step, with_messages
from parallel_lab.plan import Plan, check_plan, parse

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def groups():
    """A group of the first n ranks for each n; every rank makes them all."""
    world = dist.get_world_size()
    return {n: dist.new_group(list(range(n))) if n < world else dist.group.WORLD for n in range(1, world + 1)}


def sizes(p):
    """Fewer microbatches than ranks, one, as many, more."""
    return sorted({1, max(1, p - 1), p, 2 * p + 1})


def every_plan():
    """The largest differences from one process: of losses and of gradients, by schedule, ranks and microbatches."""
    found = {}
    for (p, group), (name, schedule) in product(groups().items(), SCHEDULES.items()):
        for m in sizes(p) if dist.get_rank() < p else ():
            plan = schedule(p, m)
            modules = chain(len(pipeline.placement(plan)))
            mine, (inputs, targets) = own(plan, modules, group), data(microbatches_of(plan))
            expected, reference = alone(modules, inputs, targets)
            loss = step(plan, mine, inputs, targets, squares, group=group)
            found[name, p, m] = abs(loss.item() - expected), gap(mine, reference)
    return found


def test_every_plan_ends_where_one_process_ends():
    run = launch(every_plan, ranks=4)
    assert {p for found in run for _, p, _ in found} == {1, 2, 3, 4}
    wrong = {key: gaps for found in run for key, gaps in found.items() if max(gaps) > 1e-12}
    assert not wrong


def several_steps():
    """Three optimizer steps, the second with other batch sizes, and what the losses were."""
    plan = pipeline.zb_v(2, 3)
    modules = chain(4)
    reference = chain(4)
    mine = own(plan, modules)
    optimizers = [
        torch.optim.AdamW([p for each in some for p in each.parameters()]) for some in (mine.values(), reference)
    ]
    losses = []
    for number, rows in enumerate([(1, 2, 3), (4, 1), (4, 1), (1, 2, 3)]):
        inputs, targets = data(3, seed=number, rows=rows)
        losses.append(step(plan, mine, inputs, targets, squares).item())
        losses[-1] -= alone(reference, inputs, targets)[0]
        _, graded = alone(reference, inputs, targets)
        for module, with_gradients in zip(reference, graded, strict=True):
            for p, q in zip(module.parameters(), with_gradients.parameters(), strict=True):
                p.grad = q.grad
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    weights = [
        (p - q).abs().max().item()
        for s in mine
        for p, q in zip(mine[s].parameters(), reference[s].parameters(), strict=True)
    ]
    return losses, max(weights)


def test_steps_with_an_optimizer_and_another_batch_size():
    for losses, weights in launch(several_steps, ranks=2):
        assert max(map(abs, losses)) < 1e-12
        assert weights < 1e-12


def accumulated(name):
    """Two steps without zero_grad in between: the sum of both gradients, each divided once."""
    plan = SCHEDULES[name](2, 4)
    modules = chain(len(pipeline.placement(plan)))
    mine = own(plan, modules)
    inputs, targets = data(4)
    _, reference = alone(modules, inputs, targets)
    for _ in range(2):
        step(plan, mine, inputs, targets, squares)
    twice = gap(mine, reference, scale=2)
    clear(mine)
    step(plan, mine, inputs, targets, squares)
    return twice, gap(mine, reference)


@pytest.mark.parametrize("name", ["one_f_one_b", "zb_h1"])
def test_gradients_add_up_over_steps(name):
    assert max(max(gaps) for gaps in launch(accumulated, name, ranks=2)) < 1e-12


def two_steps(name, p):
    plan = SCHEDULES[name](p, 4)
    mine = own(plan, chain(len(pipeline.placement(plan))))
    inputs, targets = data(microbatches_of(plan))
    for _ in range(2):
        step(plan, mine, inputs, targets, squares)


def lanes(plan):
    return [[[op for op in row if op.lane == lane] for lane in ("compute", "send", "recv")] for row in plan.rows]


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_recorded_is_the_plan_with_its_messages(name):
    """Lane by lane: a rank posts a receive one pass before it is needed, so lanes are out of step with each other."""
    trace = launch(two_steps, name, 4, ranks=4).trace
    plan = with_messages(repeated(SCHEDULES[name](4, 4), 2))
    ours = [op for op in trace.plan() if op.phase in ("", "forward", "backward")]
    recorded = Plan.of(ours, plan.needs, ranks=4)
    assert lanes(recorded) == lanes(plan)
    check_plan(recorded)
    others = {(op.kind, op.phase) for op in trace.plan()} - {(op.kind, op.phase) for op in ours}
    assert others == {(kind, phase) for kind in ("send", "recv") for phase in ("setup", "header")} | {
        ("broadcast", "loss")
    }


def waits_for_each_other():
    """Messages of 4 MB, far above what a socket holds, in both directions at once."""
    plan = pipeline.one_f_one_b(4, 6)
    module = torch.nn.Linear(1, 1)
    inputs = [torch.ones(2**20, 1) for _ in range(6)]
    return step(plan, module, inputs, inputs, squares).item()


def test_messages_above_the_socket_buffer():
    run = launch(waits_for_each_other, ranks=4)
    assert len(set(run)) == 1
    assert max(s.bytes for s in run.trace.spans) == 4 * 2**20


def own_order():
    """A schedule of one's own: backwards last first, and stage 1 on rank 0."""
    rows = "1F0 1F1 1B1 1B0\n0F0 0F1 0B1 0B0"
    plan = pipeline.with_needs([[op._replace(rank=r) for op in row] for r, row in enumerate(parse(rows).rows)])
    modules = chain(2)
    mine, (inputs, targets) = own(plan, modules), data(2)
    expected, reference = alone(modules, inputs, targets)
    loss = step(plan, mine, inputs, targets, squares)
    return abs(loss.item() - expected), gap(mine, reference)


def test_a_schedule_of_ones_own():
    assert max(max(gaps) for gaps in launch(own_order, ranks=2)) < 1e-12
