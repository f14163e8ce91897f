"""Real ranks, one of them slow: who waits for whom under each rule, and what is stale."""

import time

import pytest
import torch.distributed as dist
from small import LOSS, batches, learn

from parallel_lab import Delay, launch
from parallel_lab.synchronization import Asynchronous, Stale


class Slow:
    """A loss that makes worker 0 (rank 1) wait in its first step until the others' losses have begun `steps` steps.

    They begin once worker 0 has read version 0, so the order of events is the same in every run.
    """

    def __init__(self, folder, ranks, steps):
        self.folder, self.others, self.steps, self.calls = folder, range(2, ranks), steps, 0

    def __call__(self, outputs, targets):
        rank, self.calls = dist.get_rank(), self.calls + 1
        (self.folder / f"{rank}-{self.calls}").touch()
        if rank == 1 and self.calls == 1:
            self._until(f"{other}-{self.steps}" for other in self.others)
        elif rank != 1 and self.calls == 1:
            self._until(["1-1"])
        return LOSS(outputs, targets)

    def _until(self, names):
        for name in names:
            while not (self.folder / name).exists():
                time.sleep(1e-3)


def slowed(tmp_path, rule, steps, until):
    """A run of three workers; the first is slow until the others have begun `until` steps."""
    return launch(lambda: learn(rule, batches(steps), loss=Slow(tmp_path, 4, until)), ranks=4, timeout=30)


def test_asynchronous_blocks_nobody_and_records_what_the_slow_worker_missed(tmp_path):
    server = slowed(tmp_path, Asynchronous(), 8, 8)[0]
    slow = [push for push in server.updates if push.worker == 0]
    fast = [push for push in server.updates if push.worker != 0]
    assert len(server.updates) == len(server.staleness) == server.version == 24
    # Both others had pushed 7 times before their eighth loss began; the two eighth pushes may come before or after.
    assert slow[0].read_version == 0 and 14 <= slow[0].staleness <= 16
    assert sum(push.version < slow[0].version for push in fast) >= 14, "the others went on all the while"
    assert max(push.staleness for push in fast if push.version < slow[0].version) < slow[0].staleness


@pytest.mark.parametrize("bound", [0, 1])
def test_stale_synchronous_holds_the_fast_back(tmp_path, bound):
    run = slowed(tmp_path, Stale(bound), 6, bound + 1)
    pushes = run[0].updates
    assert max(push.staleness for push in pushes) <= Stale(bound).staleness_bound(3)
    slow = next(push for push in pushes if push.worker == 0)
    before = [push.step for push in pushes if push.version < slow.version]
    # Step `bound` had begun on each of the others, so the one before was pushed; its own push may be on the way.
    assert bound - 1 <= max(before, default=-1) <= bound, "the others make the steps that the bound lets them"
    begun = [s for rank in (2, 3) for s in run.trace.of(rank) if s.kind == "F" and s.mb > bound]
    sent = next(s for s in run.trace.of(1) if s.kind == "send")
    assert begun and all(s.start_s >= sent.start_s for s in begun)


class Boundless(Stale):
    """Says it has a bound and lets everybody through."""

    def may_pull(self, state, worker):
        return True


def test_a_server_that_ignores_the_bound_shows_in_the_staleness(tmp_path):
    assert max(slowed(tmp_path, Boundless(0), 8, 8)[0].staleness) > Stale(0).staleness_bound(3)


def test_measured_staleness_is_within_the_bound_on_several_servers():
    faults, bounds = [Delay(rank=2, kind="send", seconds=5e-3)], (0, 2)
    fn = lambda: [learn(Stale(bound), batches(), servers=2) for bound in bounds]  # noqa: E731
    for servers in launch(fn, ranks=5, faults=faults, timeout=30).results[:2]:
        for server, bound in zip(servers, bounds, strict=True):
            assert len(server.staleness) == 24
            assert max(server.staleness) <= Stale(bound).staleness_bound(3)
