"""What a run records is the plan of `ring_plan` or `ulysses_plan`; over a slow link the ring computes meanwhile."""

import pytest
import torch
import torch.distributed as dist
from shared_cp import cut, drawn

from parallel_lab import Link, launch
from parallel_lab.context_parallel import plans, ring_attention, ulysses
from parallel_lab.context_parallel.formulas import block_pairs, ring_bytes, shard_bytes, visible_pairs
from parallel_lab.plan import check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.simulate import AlphaBeta, simulate
from parallel_lab.trace import Trace, recorder, tag

pytestmark = pytest.mark.usefixtures("by_value")
CASES = [(ring_attention, True, True), (ring_attention, True, False), (ring_attention, False, False), (ulysses, 0, 0)]


def passes(attention, causal, zigzag, group=None):
    """The spans of one forward and one backward pass."""
    how = {"zigzag": bool(zigzag), "group": group}
    leaves = [cut(each, **how).clone().requires_grad_() for each in drawn(4, 4, 24)[:3]]
    first = len(recorder().spans)
    attention(*leaves, causal=bool(causal), **how).sum().backward()
    return recorder().spans[first:]


def all_cases():
    group = make_mesh(cp=dist.get_world_size())["cp"].get_group()
    found = []
    for number, case in enumerate(CASES):
        with tag(mb=number):
            found.append(passes(*case, group))
        dist.barrier()
    return found


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_run_is_its_plan(n):
    results = launch(all_cases, ranks=n).results
    for number, (attention, causal, zigzag) in enumerate(CASES):
        spans = [span._replace(phase=span.phase.split(".")[0] if "/" not in span.phase else "backward/sum", mb=0)
                 for result in results for span in result[number]]  # fmt: skip
        recorded = Trace(n, tuple(spans)).plan()
        check_plan(recorded)
        make = plans.ulysses_plan
        options = {"axis": "cp"}
        if attention is ring_attention:
            make, options = plans.ring_plan, options | {"causal": causal, "zigzag": zigzag}
        for rank in range(n):
            expected = [op for phase in ("forward", "backward") for op in make(n, phase=phase, **options).rows[rank]]
            assert list(recorded.rows[rank]) == expected, (attention.__name__, causal, zigzag)


def test_plans_are_carried_out_by_the_simulator():
    """With free messages a ring takes as long as its busiest rank computes; with slow ones, as long as these take."""
    n, length = 4, 6
    for phase, messages in (("forward", n - 1), ("backward", 2 * (n - 1))):
        for zigzag in (True, False):
            plan = plans.ring_plan(n, zigzag=zigzag, phase=phase)
            check_plan(plan)
            assert [sum(op.kind == "send" for op in row) for row in plan.rows] == [messages] * n
            blocks = [sum(op.kind == "attention" for op in row) for row in plan.rows]
            assert blocks == ([n] * n if zigzag else [1, 2, 3, 4])
            pairs = lambda op, zigzag=zigzag: block_pairs(op.rank, op.part, length, zigzag=zigzag)  # noqa: E731
            busiest = max(visible_pairs(n * length, rank, n, zigzag=zigzag) for rank in range(n))
            assert simulate(plan, AlphaBeta(0.0, float("inf"), 0, pairs)).duration_s == busiest
            waits = 1000 * messages  # shards and sums take the same link
            assert waits <= simulate(plan, AlphaBeta(1000.0, float("inf"), 0, pairs)).duration_s < waits + 2 * busiest
    with pytest.raises(ValueError, match="n=0"):
        plans.ring_plan(0)
    shard = shard_bytes(1, 8, 1, 4, 4)
    assert ring_bytes(shard, 4) == (3 * shard, 6 * shard)


def over_a_slow_link():
    passes(ring_attention, True, True)  # the first opens connections
    dist.barrier()
    return passes(ring_attention, True, True)


def test_a_rank_computes_while_its_shard_travels():
    """Over a link of a quarter of a second, every block but the last begins while a message is under way."""
    n = 3
    results = launch(over_a_slow_link, ranks=n, link=Link(latency_s=0.25)).results
    for spans in results:
        for phase in ("forward", "backward"):
            work = [span for span in spans if span.kind == "attention" and span.phase.startswith(phase)]
            sent = [span for span in spans if span.kind == "send" and span.phase.startswith(phase)]
            assert len(work) == n
            beside = [any(s.start_s < w.start_s < s.end_s for s in sent) for w in work]
            assert beside == ([True] * (n - 1) + [False] if phase == "forward" else [True] * n)


def two_layers():
    x = cut(drawn(4, 4, 24)[0]).requires_grad_()
    with torch.enable_grad():
        for layer in range(3):
            with tag(mb=layer // 2):
                x = ring_attention(x, x, x) + ulysses(x, x, x)
    x.sum().backward()
    return recorder().spans


def test_a_run_of_several_layers_is_a_plan():
    """Every message and block stands once."""
    spans = tuple(span for spans in launch(two_layers, ranks=2).results for span in spans)
    check_plan(Trace(2, spans).plan())
    assert {span.mb for span in spans if span.phase.startswith("backward")} == {0, 1}
