"""Mixed consistency on several real servers: uneven speeds, and a server that dies before or after the switch."""

import pytest
import torch
from small import LOSS, batches, mlp

from parallel_lab import Delay, Kill, launch
from parallel_lab import parameter_server as ps


def train(**options):
    return ps.train(mlp(), batches(), torch.optim.SGD, loss=LOSS, lr=0.1, **options)


def rounds_of(record):
    """The updates of several pushes or after the first of these: sets of (worker, step), in order."""
    sets = [[push for push in record.pushes if push.version == version] for version in range(len(record.versions))]
    first = next((i for i, pushes in enumerate(sets) if len(pushes) > 1), len(sets))
    return sets[first:]


@pytest.mark.parametrize("servers", [2, 3])
@pytest.mark.parametrize("workers", [2, 3])
def test_real_servers_at_uneven_speeds(workers, servers):
    def fn():
        return [train(servers=servers, consistency=ps.Mixed(5)) for _ in range(10)]

    slow = [Delay(rank=servers, kind="send", seconds=2e-3), Delay(rank=servers - 1, kind="send", seconds=1e-3)]
    run = launch(fn, ranks=workers + servers, faults=slow, timeout=60)
    for turn in range(10):
        records = [run[rank][turn] for rank in range(workers + servers)]
        synchronous = [rounds_of(record) for record in records[:servers]]
        for record, rounds in zip(records, synchronous, strict=False):
            assert len(record.staleness) == 8 * workers
            assert all(push.staleness == 0 for pushes in rounds[1:] for push in pushes)
        names = [[{(p.worker, p.step) for p in pushes} for pushes in rounds] for rounds in synchronous]
        assert all(each == names[0] for each in names) and names[0]
        assert all(
            torch.equal(r.weights[name], records[-1].weights[name]) for r in records[servers:] for name in r.weights
        )


@pytest.mark.parametrize("dies", [0, 1])
@pytest.mark.parametrize("nth", [4, 12, 18])
def test_a_spare_takes_over_before_and_after_the_switch(tmp_path, dies, nth):
    options = {"servers": 3, "spares": 1, "snapshot": tmp_path, "every": 2, "consistency": ps.Mixed(6)}
    run = launch(lambda: train(**options), ranks=6, faults=[Kill(dies, kind="send", nth=nth)], may_fail=[dies])
    assert run[2].taken == [dies] and [len(record.losses) for record in run.results[3:]] == [8, 8, 8]
    assert all(torch.equal(w.weights[name], run[5].weights[name]) for w in run.results[3:] for name in w.weights)
