"""The executor against `torch.distributed.pipelining`: the same gradients, from each schedule that PyTorch has too."""

import sys

import cloudpickle
import torch
import torch.distributed as dist
from chains import SCHEDULES, chain, data, own, squares
from torch.distributed.pipelining import PipelineStage, schedules

from parallel_lab import launch, pipeline
from parallel_lab.pipeline import step

cloudpickle.register_pickle_by_value(sys.modules[__name__])

PEERS = {
    "gpipe": schedules.ScheduleGPipe,
    "one_f_one_b": schedules.Schedule1F1B,
    "interleaved": schedules.ScheduleInterleaved1F1B,
    "looped_bfs": schedules.ScheduleLoopedBFS,
    "zb_h1": schedules.ScheduleInterleavedZeroBubble,
    "zb_v": schedules.ScheduleZBVZeroBubble,
    "dualpipe_v": schedules.ScheduleDualPipeV,
}


def both():
    """The largest difference of a gradient between PyTorch's executor and ours, by schedule, after two steps."""
    ranks, m, found = dist.get_world_size(), 4, {}
    inputs, targets = data(m, rows=(2,))
    for name, peer in PEERS.items():
        plan = SCHEDULES[name](ranks, m)
        stages = len(pipeline.placement(plan))
        ours, theirs = (own(plan, chain(stages)) for _ in range(2))
        parts = [PipelineStage(module, s, stages, torch.device("cpu")) for s, module in theirs.items()]
        one = name in ("gpipe", "one_f_one_b")
        schedule = peer(parts[0] if one else parts, m, loss_fn=squares, scale_grads=False)
        first, last = 0 in ours, stages - 1 in ours
        for _ in range(2):
            step(plan, ours, inputs, targets, squares, count=1)
            schedule.step(*[torch.cat(inputs)] * first, **({"target": torch.cat(targets)} if last else {}))
        pairs = [
            (a.grad, b.grad) for s in ours for a, b in zip(ours[s].parameters(), theirs[s].parameters(), strict=True)
        ]
        found[name] = max(float((a - b).abs().max()) for a, b in pairs)
    return found


def test_gradients_are_those_of_pytorch():
    for found in launch(both, ranks=2):
        assert found.keys() == PEERS.keys()
        assert max(found.values()) < 1e-12
