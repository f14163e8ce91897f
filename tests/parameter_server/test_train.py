"""Real servers and workers: parity with one process, staleness, and who waits for whom."""

import time

import pytest
import torch
import torch.distributed as dist
from small import LOSS, batches, mlp

from parallel_lab import Delay, Link, launch, model
from parallel_lab import parameter_server as ps
from parallel_lab import synchronization as sync

UNEVEN = batches(4, 7)  # neither two nor three workers share seven samples evenly


def train(ranks, optimizer=torch.optim.SGD, steps=4, loss=LOSS, lr=0.1, faults=(), link=None, **options):
    def fn():
        return ps.train(mlp(), batches(steps, 7), optimizer, loss=loss, lr=lr, **options)

    return launch(fn, ranks=ranks, timeout=30, faults=faults, link=link)


def assert_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-12)


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("servers", [1, 2, 3])
def test_synchronous_equals_one_process(name, workers, servers):
    optimizer, settings = OPTIMIZERS[name]
    expected = model.train(mlp(), UNEVEN, optimizer, loss=LOSS, lr=0.1, **settings)
    run = train(workers + servers, optimizer, servers=servers, **settings)
    for record in run.results[servers:]:
        assert_weights(record.weights, expected.weights)
        assert record.versions == [0, 1, 2, 3]
    for record in run.results[:servers]:
        assert record.staleness == [0] * 4 * workers and record.versions == [1, 2, 3, 4]
    sizes = [len(share) for share in torch.arange(7).tensor_split(workers)]
    means = zip(*(record.losses for record in run.results[servers:]), strict=True)
    for each, mean in zip(means, expected.losses, strict=True):
        assert sum(n * loss for n, loss in zip(sizes, each, strict=True)) / 7 == pytest.approx(mean, abs=1e-12)


def test_more_servers_than_parameters():
    def fn():
        data = [(x[:, :1], torch.zeros(len(x), 1).double()) for x, _ in UNEVEN]
        loss = torch.nn.functional.mse_loss
        reference = model.train(mlp((1, 1)), data, torch.optim.AdamW, loss=loss, lr=0.1)
        return ps.train(mlp((1, 1)), data, torch.optim.AdamW, servers=3, loss=loss, lr=0.1), reference

    run = launch(fn, ranks=5, timeout=30)
    record, reference = run[3]
    assert_weights(record.weights, reference.weights)
    assert [len(run[r][0].weights) for r in range(3)] == [1, 1, 0]


def test_servers_hold_the_final_parameters_between_them():
    run = train(4, servers=2)
    names = {}
    for record in run.results[:2]:
        names |= record.weights
    flat = torch.cat([piece.reshape(-1) for piece in names.values()])
    expected = torch.cat([tensor.reshape(-1) for tensor in run[2].weights.values()])
    assert torch.equal(flat, expected)


def test_a_group_that_is_not_all_ranks():
    def fn():
        group = dist.new_group([1, 2, 3])
        if dist.get_rank() == 0:
            return None
        return ps.train(mlp(), UNEVEN, torch.optim.SGD, loss=LOSS, lr=0.1, group=group)

    run = launch(fn, ranks=4, timeout=30)
    assert [record.role for record in run.results[1:]] == ["server", "worker", "worker"]
    expected = model.train(mlp(), UNEVEN, torch.optim.SGD, loss=LOSS, lr=0.1)
    assert_weights(run[3].weights, expected.weights)


def test_a_function_gives_each_worker_its_own_batches():
    def own(worker, workers):
        return batches(2 + worker, 7)[:2]

    def fn():
        return ps.train(mlp(), own, torch.optim.SGD, loss=LOSS, lr=0.1, steps=1)

    run = launch(fn, ranks=3, timeout=30)
    assert [len(record.losses) for record in run.results] == [0, 1, 1]


def test_the_model_given_stays_as_it_was():
    def fn():
        mine = mlp()
        ps.train(mine, UNEVEN, torch.optim.SGD, loss=LOSS, lr=0.1)
        return mine.state_dict()

    assert_weights(launch(fn, ranks=2, timeout=30)[1], mlp().state_dict())


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


def test_asynchronous_blocks_nobody_and_records_what_the_slow_worker_missed(tmp_path):
    run = train(4, consistency=sync.Asynchronous(), steps=8, loss=Slow(tmp_path, 4, 8))
    server = run[0]
    slow = [push for push in server.pushes if push.worker == 0]
    fast = [push for push in server.pushes if push.worker != 0]
    assert len(server.pushes) == len(server.staleness) == 24 and server.versions == list(range(1, 25))
    # Both others had pushed 7 times before their eighth loss began; the two eighth pushes may come before or after.
    assert slow[0].read == 0 and 14 <= slow[0].staleness <= 16
    assert sum(push.version < slow[0].version for push in fast) >= 14, "the others went on all the while"
    meanwhile = [push.staleness for push in fast if push.version < slow[0].version]
    assert max(meanwhile) < slow[0].staleness


@pytest.mark.parametrize("bound", [0, 1])
def test_stale_synchronous_holds_the_fast_back(tmp_path, bound):
    run = train(4, consistency=sync.Stale(bound), steps=6, loss=Slow(tmp_path, 4, bound + 1))
    pushes = run[0].pushes
    assert max(push.staleness for push in pushes) <= sync.Stale(bound).staleness_bound(3)
    slow = next(push for push in pushes if push.worker == 0)
    before = [push.step for push in pushes if push.version < slow.version]
    # Step `bound` had begun on each of the others, so the one before was pushed; its own push may be on the way.
    assert bound - 1 <= max(before, default=-1) <= bound, "the others make the steps that the bound lets them"
    begun = [s for rank in (2, 3) for s in run.trace.of(rank) if s.kind == "F" and s.mb > bound]
    sent = next(s for s in run.trace.of(1) if s.kind == "send")
    assert begun and all(s.start_s >= sent.start_s for s in begun)


@pytest.mark.parametrize("bound", [0, 2])
@pytest.mark.parametrize("servers", [1, 2])
def test_measured_staleness_is_within_the_bound(bound, servers):
    faults = [Delay(rank=servers, kind="send", seconds=5e-3)]
    run = train(servers + 3, consistency=sync.Stale(bound), servers=servers, steps=8, faults=faults)
    for record in run.results[:servers]:
        assert len(record.staleness) == 24
        assert max(record.staleness) <= sync.Stale(bound).staleness_bound(3)


class Boundless(sync.Stale):
    def may_pull(self, state, worker):
        return True


def test_a_real_server_that_ignores_the_bound_shows_in_the_staleness(tmp_path):
    run = train(4, consistency=Boundless(0), steps=8, loss=Slow(tmp_path, 4, 8))
    assert max(run[0].staleness) > sync.Stale(0).staleness_bound(3)


def test_partial_drops_the_late_and_counts_them(tmp_path):
    run = train(4, consistency=sync.Partial(2), steps=4, loss=Slow(tmp_path, 4, 3))
    server = run[0]
    late = [push for push in server.pushes if push.dropped]
    assert server.dropped == len(late) >= 1
    first = late[0]
    assert (first.worker, first.step, first.read) == (0, 0, 0) and first.staleness >= 2
    assert set(server.staleness) == {0}
    assert len(server.pushes) == 12 and len(server.staleness) == 12 - server.dropped


def test_mixed_switches(tmp_path):
    run = train(4, consistency=sync.Mixed(6), steps=12, loss=Slow(tmp_path, 4, 1))
    sizes = [sum(push.version == version for push in run[0].pushes) for version in range(len(run[0].versions))]
    first = sizes.index(3)
    # When the first server has made 6 updates, each worker may still have a gradient of before under way.
    assert sizes[:first] == [1] * first and 6 <= first <= 8, "asynchronous: one push an update"
    assert sizes[first] == 3 and sum(sizes) == 36, "synchronous: one of each worker that is still there"
    later = [push for push in run[0].pushes if push.version > first]
    assert later and all(push.staleness == 0 for push in later)


def test_through_an_emulated_link():
    expected = model.train(mlp(), UNEVEN, torch.optim.SGD, loss=LOSS, lr=0.1)
    run = train(4, servers=2, link=Link(1e-4, 1e7))
    assert_weights(run[3].weights, expected.weights)
