"""Snapshots, and spares that take the place of servers which have died."""

import pytest
import torch
import torch.distributed as dist
from small import assert_weights, batches, learn, mlp, work

from parallel_lab import Kill, RankFailed, launch
from parallel_lab.parameter_server.server import Shard
from parallel_lab.parameter_server.wire import Header, Message
from parallel_lab.synchronization import Asynchronous, Mixed, Partial, Stale, Synchronous
from parallel_lab.systems.resilience import server_spares
from parallel_lab.systems.resilience.server_spares import Snapshots


def train(folder, ranks, servers=1, spares=1, every=3, steps=12, rule=None, data=None, faults=(), may_fail=()):
    def fn():
        net, rule_ = mlp(), rule or Synchronous()
        if dist.get_rank() < servers + spares:
            snapshots = Snapshots(folder, net, servers=servers, every=every)
            counts = {"servers": servers, "spares": spares}
            return server_spares.serve(net, torch.optim.SGD, rule_, snapshots=snapshots, lr=0.1, **counts)
        return work(server_spares.SparedWorker(net, servers=servers, spares=spares), data or batches(steps))

    return launch(fn, ranks=ranks, timeout=30, faults=faults, may_fail=may_fail)


RULES = [Synchronous(), Asynchronous(), Stale(1), Partial(3), Mixed(3)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_spare_takes_over_the_shard_of_a_dead_server(tmp_path, rule):
    # Each worker reads once a step, so the 17th answer is in the sixth step.
    run = train(tmp_path, 5, rule=rule, faults=[Kill(rank=0, kind="send", nth=16)], may_fail=[0])
    assert "SIGKILL" in run.failures[0]
    spare, *workers = run.results[1:]
    assert spare.taken == [0] and [len(worker.losses) for worker in workers] == [12, 12, 12]
    for worker in workers:
        assert_weights(worker.weights, workers[0].weights, atol=0)
    flat = torch.cat([tensor.reshape(-1) for tensor in workers[0].weights.values()])
    assert torch.equal(flat, spare.parameters)
    if isinstance(rule, Synchronous):
        drops = [next(i for i in range(1, 12) if w.versions[i] <= w.versions[i - 1]) for w in workers]
        restored = min(w.versions[i] for w, i in zip(workers, drops, strict=True))
        seen = max(w.versions[i - 1] for w, i in zip(workers, drops, strict=True))
        assert restored == 3 and spare.lost == seen - restored > 0


@pytest.mark.parametrize("rule", [Synchronous(), Stale(0), Partial(2)], ids=repr)
def test_one_of_two_servers_dies_and_a_worker_that_has_finished_notices(tmp_path, rule):
    def data(worker):  # worker 0 waits for the end at both servers; the spare has to hear from it before it goes on
        return batches(2 if worker == 0 else 8)

    faults = [Kill(rank=1, kind="send", nth=12)]
    run = train(tmp_path, 6, servers=2, every=1, rule=rule, data=data, faults=faults, may_fail=[1])
    assert run[2].taken == [1]
    assert [len(worker.losses) for worker in run.results[3:]] == [2, 8, 8]
    for worker in run.results[3:]:
        assert_weights(worker.weights, run[5].weights, atol=0)


def test_two_servers_die_and_one_spare_holds_both_shards(tmp_path):
    faults = [Kill(rank=0, kind="send", nth=9), Kill(rank=1, kind="send", nth=14)]
    run = train(tmp_path, 5, servers=2, every=2, steps=10, faults=faults, may_fail=[0, 1])
    assert run[2].taken == [0, 1] and len(run[2].parameters) == 66
    assert len(run[3].losses) == len(run[4].losses) == 10


def test_a_spare_that_dies_is_followed_by_the_next(tmp_path):
    faults = [Kill(rank=0, kind="send", nth=9), Kill(rank=1, kind="send", nth=4)]
    run = train(tmp_path, 5, spares=2, every=1, steps=10, faults=faults, may_fail=[0, 1])
    assert run[2].taken == [0]
    assert len(run[3].losses) == len(run[4].losses) == 10
    with pytest.raises(RankFailed, match="is gone, and with it shard 0"):
        train(tmp_path, 5, spares=1, every=1, steps=10, faults=faults, may_fail=[0, 1])


def test_nobody_dies_and_the_spare_returns(tmp_path):
    run = train(tmp_path, 4, steps=3)
    assert run[1].taken == [] and run[1].updates == [] and run[0].version == 3


def test_a_run_goes_on_from_its_snapshots(tmp_path):
    def half(steps, resume):
        snapshots = Snapshots(tmp_path, mlp(), servers=2, every=4, resume=resume)
        return learn(Synchronous(), steps, servers=2, momentum=0.9, on_update=snapshots)

    def fn():
        first = half(batches(8)[:4], False)
        dist.barrier()
        return first, half(batches(8)[4:], True), learn(Synchronous(), batches(8), servers=2, momentum=0.9)

    run = launch(fn, ranks=3, timeout=30)
    assert run[0][1].version == 8 and run[2][1].versions == [4, 5, 6, 7]
    assert_weights(run[2][1].weights, run[2][2].weights, atol=0)


def shard(*snapshots):
    make = lambda one: torch.optim.AdamW(one, lr=0.1)  # noqa: E731
    return Shard(0, torch.ones(66, dtype=torch.float64), make, Synchronous(), 1, *snapshots)


def push(to, step):
    message = Message(66, torch.float64)
    message.header = Header(step=step, version=to.state.version, weight=1)
    message.vector.copy_(torch.arange(66) + step)
    to.push(0, message)


def test_a_restored_shard_goes_on_as_if_nothing_had_happened(tmp_path):
    snapshots = Snapshots(tmp_path, mlp(), every=2)
    whole = shard(snapshots)
    for step in range(3):  # the snapshot is of version 2
        push(whole, step)
    spare = shard()
    snapshots.restore(spare)
    assert spare.state.version == spare.answer.header.version == 2
    push(spare, 2)
    assert torch.equal(spare.w, whole.w)


@pytest.mark.parametrize(
    ("model", "servers", "words"),
    [
        (mlp(), 2, "its servers is 2, and that of this model is 1"),
        (mlp().float(), 1, "its dtype is torch.float32, and that of this model is torch.float64"),
        (mlp((5, 8, 3)), 1, r"its 0.weight is \[8, 5\], and that of this model is \[7, 5\]"),
        (mlp((5, 7)), 1, r"its 2.weight is None"),
    ],
)
def test_a_snapshot_of_another_layout_says_which(tmp_path, model, servers, words):
    Snapshots(tmp_path, model, servers=servers).save(shard())
    with pytest.raises(ValueError, match=words):
        Snapshots(tmp_path, mlp()).restore(shard())


def test_snapshots_that_are_missing_damaged_or_cannot_be_written(tmp_path):
    snapshots = Snapshots(tmp_path, mlp())
    with pytest.raises(ValueError, match="no snapshot of shard 0"):
        snapshots.restore(shard())
    snapshots.file(0).write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        snapshots.restore(shard())
    with pytest.raises(ValueError, match="cannot be written"):
        Snapshots(snapshots.file(0) / "folder", mlp())
    with pytest.raises(ValueError, match="every=0"):
        Snapshots(tmp_path, mlp(), every=0)


def test_a_failed_write_leaves_the_snapshot_before(tmp_path):
    snapshots = Snapshots(tmp_path, mlp(), every=1)
    one = shard(snapshots)
    push(one, 0)
    one.optimizer.state_dict = lambda: {"x": lambda: 0}
    with pytest.raises(AttributeError, match="pickle"):
        push(one, 1)
    spare = shard()
    snapshots.restore(spare)
    assert spare.state.version == 1 and [path.name for path in tmp_path.iterdir()] == ["shard0.pt"]
