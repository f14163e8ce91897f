"""Our rows against the order in which torch.distributed.pipelining runs its schedules."""

import pytest
from torch import nn
from torch.distributed.pipelining.schedules import Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

from parallel_lab.pipeline import gpipe, interleaved, one_f_one_b


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
    stages = [RecordingStage(s, p * v, 0, p) for s in range(0, p * v, p)]
    theirs = ScheduleInterleaved1F1B(stages, m).pipeline_order
    assert [[str(action) for action in theirs[rank] if action] for rank in range(p)] == rows(interleaved(p, m, v))
