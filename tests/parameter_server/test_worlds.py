"""Real servers and workers, many worlds in one launch: parity with one process, the plan, the bytes."""

import itertools
from math import ceil

import pytest
import torch
import torch.distributed as dist
from small import LOSS, assert_weights, batches, learn, mlp

from parallel_lab import Link, launch, model
from parallel_lab import parameter_server as ps
from parallel_lab.plan import Plan, check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.simulate import AlphaBeta, simulate
from parallel_lab.synchronization import Asynchronous, Mixed, Partial, Stale, Synchronous
from parallel_lab.trace import recorder

DATA = batches(4)
WORLDS = list(itertools.product((1, 2, 3), (1, 2, 3)))  # (workers, servers)
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}
ELEMENTS, ITEM_BYTES = 66, 8


def every_world():
    """What each rank did in each world with each optimizer, and the ops of the training; every rank calls it."""
    found = {}
    for workers, servers in WORLDS:
        group = dist.new_group(list(range(workers + servers)))
        for name, (optimizer, settings) in OPTIMIZERS.items():
            if dist.get_rank() < workers + servers:
                before = len(recorder().spans)
                done = learn(Synchronous(), DATA, servers=servers, optimizer=optimizer, group=group, **settings)
                found[workers, servers, name] = done, recorder().spans[before:]
    return found


@pytest.fixture(scope="module")
def worlds():
    return launch(every_world, ranks=6, timeout=60).results


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("workers", "servers"), WORLDS)
def test_synchronous_equals_one_process(worlds, workers, servers, name):
    optimizer, settings = OPTIMIZERS[name]
    expected = model.train(mlp(), DATA, optimizer, loss=LOSS, lr=0.1, **settings)
    done = [worlds[rank][workers, servers, name][0] for rank in range(workers + servers)]
    for worker in done[servers:]:
        assert_weights(worker.weights, expected.weights)
        assert worker.versions == [0, 1, 2, 3]
    for server in done[:servers]:
        assert server.staleness == [0] * 4 * workers and server.version == 4
    kept = torch.cat([server.parameters for server in done[:servers]])
    assert torch.equal(kept, torch.cat([tensor.reshape(-1) for tensor in done[-1].weights.values()]))
    sizes = [len(share) for share in torch.arange(7).tensor_split(workers)]
    means = zip(*(worker.losses for worker in done[servers:]), strict=True)
    for each, mean in zip(means, expected.losses, strict=True):
        assert sum(n * loss for n, loss in zip(sizes, each, strict=True)) / 7 == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize(("workers", "servers"), WORLDS)
def test_a_run_is_its_plan(worlds, workers, servers):
    group = worlds[0][workers, servers, "sgd"][1][-1].axis  # that has no name, and so a number
    plan = ps.plan(workers, servers, 4, finish=True, axis=group)
    check_plan(plan)
    for rank in range(workers + servers):
        spans = worlds[rank][workers, servers, "sgd"][1]
        assert [span.kind for span in spans[:1]] == ["all_reduce"], "all agree on the model first"
        assert [span.op for span in spans[1:]] == list(plan.rows[rank])


@pytest.mark.parametrize(("workers", "servers"), WORLDS)
def test_bytes_are_those_of_the_formulas(worlds, workers, servers):
    for rank in range(workers + servers):
        done, spans = worlds[rank][workers, servers, "adamw"]
        if rank < servers:
            expected = ps.formulas.server_sent_bytes(ELEMENTS, servers, ITEM_BYTES, 4, workers, rank)
        else:
            expected = ps.formulas.worker_sent_bytes(ELEMENTS, servers, ITEM_BYTES, 4)
        assert sum(span.sent_bytes for span in spans if span.peer >= 0) == done.sent_bytes == expected


def test_the_plan_on_an_axis_of_a_mesh():
    def fn():
        learn(Synchronous(), batches(2), group=make_mesh(dp=2, tp=2)["dp"].get_group())

    run = launch(fn, ranks=4, timeout=30)
    check_plan(run.trace.plan())
    plan = ps.plan(1, 1, 2, finish=True, axis="dp")
    for place, rank in ((0, 1), (1, 3)):
        ops = [span.op for span in run.trace.of(rank) if span.op.kind in {op.kind for op in plan}]
        there = {0: 1, 1: 3, -1: -1}
        assert ops == [op._replace(rank=rank, peer=there[op.peer]) for op in plan.rows[place]]


RULES = [(Synchronous(), 2), (Asynchronous(), 2), (Stale(1), 2), (Partial(2), 2), (Mixed(3), 1)]


def test_the_trace_of_every_rule_is_a_plan():
    def fn():
        found = []
        groups = {servers: dist.new_group(list(range(3 + servers))) for servers in (1, 2)}
        for rule, servers in RULES:
            if dist.get_rank() < 3 + servers:
                before = len(recorder().spans)
                done = learn(rule, DATA, servers=servers, group=groups[servers])
                found.append((done, [span.op for span in recorder().spans[before:]]))
        return found

    run = launch(fn, ranks=5, timeout=60)
    for i, (_, servers) in enumerate(RULES):
        found = [run[rank][i] for rank in range(3 + servers)]
        check_plan(Plan.of([op for _, ops in found for op in ops]))
        (server, _), *workers = found[0], *found[servers:]
        assert len(server.updates) == 12 and [len(done.versions) for done, _ in workers] == [4] * 3
        for done, _ in workers:
            assert_weights(done.weights, workers[0][0].weights, atol=0)


@pytest.mark.parametrize(("workers", "servers"), list(itertools.product((1, 2, 3, 4, 8, 16), repeat=2)))
def test_the_simulated_plan_takes_what_the_formula_says(workers, servers):
    size = 48_000
    took_s = simulate(ps.plan(workers, servers), AlphaBeta(0, 1, part_bytes=size // servers)).duration_s
    assert took_s == (ceil(workers / servers) + 1) * size
    link = Link(0.0, 1e9)
    assert ps.formulas.step_seconds(workers, servers, 1e10, link) == pytest.approx(took_s * 10 / size, rel=1e-4)


def test_more_servers_than_parameters_and_no_two_answers_at_once():
    """With as many servers a worker asks one after another; with fewer a server answers so: no link stands idle."""
    data = [(x[:, :1], torch.zeros(len(x), 1).double()) for x, _ in DATA]
    mse = torch.nn.functional.mse_loss

    def fn():
        return learn(Synchronous(), data, servers=3, optimizer=torch.optim.AdamW, make=lambda: mlp((1, 1)), loss=mse)

    run = launch(fn, ranks=5, timeout=30)
    expected = model.train(mlp((1, 1)), data, torch.optim.AdamW, loss=mse, lr=0.1)
    assert_weights(run[3].weights, expected.weights)
    assert [len(run[rank].parameters) for rank in range(3)] == [1, 1, 0]
    for rank in (3, 4):
        pulls = [span for span in run.trace.of(rank) if (span.kind, span.phase) == ("recv", "forward") and span.mb < 4]
        assert len(pulls) == 12
        assert all(one.end_s <= two.start_s for one, two in itertools.pairwise(pulls))


@pytest.mark.parametrize(("workers", "servers"), [(4, 2), (3, 1)])
def test_through_an_emulated_link_one_answer_after_another(workers, servers):
    run = launch(lambda: learn(Synchronous(), DATA, servers=servers), ranks=workers + servers, link=Link(1e-4, 1e7))
    assert_weights(run[-1].weights, model.train(mlp(), DATA, torch.optim.SGD, loss=LOSS, lr=0.1).weights)
    for rank in range(servers):
        answers = [span for span in run.trace.of(rank) if span.kind == "send"]
        assert len(answers) == 5 * workers
        assert all(one.end_s <= two.start_s for one, two in itertools.pairwise(answers))


def test_the_model_of_a_server_stays_as_it_was_and_that_of_a_worker_is_trained():
    def fn():
        mine = mlp()
        learn(Synchronous(), DATA, make=lambda: mine)
        return mine.state_dict()

    run = launch(fn, ranks=2, timeout=30)
    assert_weights(run[0], mlp().state_dict(), atol=0)
    assert_weights(run[1], model.train(mlp(), DATA, torch.optim.SGD, loss=LOSS, lr=0.1).weights)
