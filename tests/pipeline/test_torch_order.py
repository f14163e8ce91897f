"""Our rows against the order in which torch.distributed.pipelining runs its schedules."""

import pytest
from torch import nn
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleDualPipeV,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS,
    ScheduleZBVZeroBubble,
)

from parallel_lab.pipeline import dualpipe_v, gpipe, interleaved, looped_bfs, one_f_one_b, zb_h1, zb_v


class RecordingStage:
    """A stage without a model or messages: it notes which pass it was asked for."""

    def __init__(self, stage, stages, rank, ranks):
        self.stage_index, self.num_stages = stage, stages
        self.group_rank, self.group_size, self.group = rank, ranks, None
        self.submod, self.device, self.has_backward = nn.Identity(), "cpu", True
        self.is_first, self.is_last = stage == 0, stage == stages - 1
        self.log = []

    def forward_one_chunk(self, mb, args, kwargs=None, save_forward_output=True):
        self.log.append(f"{self.stage_index}F{mb}")

    def backward_one_chunk(self, mb, loss=None, full_backward=True, last_backward=False):
        self.log.append(f"{self.stage_index}B{mb}")

    def _no_messages(self, mb=0):
        return []

    get_fwd_recv_ops = get_fwd_send_ops = get_bwd_recv_ops = get_bwd_send_ops = _no_messages

    def _get_init_p2p_neighbors_ops(self):
        return []

    def _prepare_forward_infra(self, *args, **kwargs):
        return ()

    def _prepare_backward_infra(self, *args, **kwargs):
        return ()

    def perform_reduce_grad(self, scale):
        pass


def rows(plan):
    return [[str(op) for op in row] for row in plan.rows]


def order_run(schedule, p, m):
    """What each stage of a one-stage-a-rank schedule does, in order, when the schedule runs."""
    logs = []
    for s in range(p):
        stage = RecordingStage(s, p, s, p)
        run = schedule(stage, m, loss_fn=lambda output, target: 0)
        run._maybe_compute_loss = run._maybe_get_loss = lambda *args: None
        run._update_losses = lambda *args: None
        run._step_microbatches([()] * m, [{}] * m, [None] * m, return_outputs=False)
        logs.append(stage.log)
    return logs


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 2), (2, 5), (4, 4), (4, 11), (8, 16)])
def test_1f1b_and_gpipe_run_in_our_order(p, m):
    assert order_run(Schedule1F1B, p, m) == rows(one_f_one_b(p, m))
    assert order_run(ScheduleGPipe, p, m) == rows(gpipe(p, m))


@pytest.mark.parametrize(
    ("p", "m", "v"), [(p, p * rounds, v) for p in (1, 2, 3, 4, 8) for rounds in (1, 2, 3) for v in (1, 2, 4)]
)
def test_interleaved_is_planned_in_our_order(p, m, v):
    assert planned(ScheduleInterleaved1F1B, p, m, range(0, p * v, p), p * v) == rows(interleaved(p, m, v))


def planned(schedule, p, m, stages_of_rank_0, stages):
    """The rows of a schedule that PyTorch plans before it runs, pairs taken apart: a forward, then a backward."""
    mine = [RecordingStage(s, stages, 0, p) for s in stages_of_rank_0]
    theirs = schedule(mine, m, loss_fn=lambda output, target: 0).pipeline_order
    flat = []
    for rank in range(p):
        each = [(action.sub_actions or [action]) for action in theirs[rank] if action]
        flat.append([str(action) for actions in each for action in actions])
    return flat


@pytest.mark.parametrize(("p", "m"), [(1, 3), (2, 4), (3, 6), (4, 8), (4, 11), (6, 13)])
def test_v_shapes_are_planned_in_our_order(p, m):
    ends = [0, 2 * p - 1]
    assert planned(ScheduleDualPipeV, p, m, ends, 2 * p) == rows(dualpipe_v(p, m))
    theirs, ours = planned(ScheduleZBVZeroBubble, p, m, ends, 2 * p), rows(zb_v(p, m))
    for rank, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        steady = len(our) - 2 * rank  # the last 2 r W wait for nothing, and may stand in any order
        assert their[:steady] == our[:steady] and sorted(their[steady:]) == sorted(our[steady:])
        assert {name.strip("0123456789") for name in our[steady:]} <= {"W"}


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 2), (3, 5), (4, 4), (4, 6), (4, 12), (8, 24)])
def test_their_zero_bubble_with_one_stage_a_rank_is_h1(p, m):
    assert planned(ScheduleInterleavedZeroBubble, p, m, [0], p) == rows(zb_h1(p, m))


@pytest.mark.parametrize(("p", "m", "v"), [(1, 2, 2), (2, 3, 2), (4, 6, 3)])
def test_looped_bfs_is_planned_in_our_order_but_for_backwards_from_the_last_microbatch_on(p, m, v):
    plan = looped_bfs(p, m, v)
    mirrored = [[str(op._replace(mb=m - 1 - op.mb) if op.kind == "B" else op) for op in row] for row in plan.rows]
    assert planned(ScheduleLoopedBFS, p, m, range(0, p * v, p), p * v) == mirrored
