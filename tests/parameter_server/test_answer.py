"""Answers: what is on its way stays as it was, whatever is pushed meanwhile; and who is answered when."""

import itertools
import threading
import time

import pytest
import torch

from parallel_lab import launch, model
from parallel_lab import parameter_server as ps
from parallel_lab import synchronization as sync
from parallel_lab.parameter_server.answer import Answers
from parallel_lab.parameter_server.shard import Shard
from parallel_lab.parameter_server.sharding import Layout
from parallel_lab.parameter_server.wire import PUSH, Header, open_reply


def shard(rule, workers, servers=1, index=0):
    layout = Layout(("w",), ((servers,),), "torch.float32", servers)
    make = lambda parameters: torch.optim.SGD(parameters, lr=1.0, momentum=0.5)  # noqa: E731
    return Shard(layout, index, torch.zeros(1), make, rule, set(range(workers)))


def push(to, worker, version, step=0, rounds=0):
    to.push(worker, Header(PUSH, 0, step, version, samples=1, round=rounds), torch.ones(1))


def opened(reply):
    numbers, values = open_reply(reply, torch.float32)
    return (*numbers.tolist(), values.item())


def test_an_answer_on_its_way_is_not_altered():
    one = shard(sync.Asynchronous(), 2)
    with one.pull(0) as first:
        push(one, 1, 0)
        push(one, 1, 1, step=1)
        assert opened(first) == (0, 0, 0.0)
        with one.pull(1) as second:
            assert opened(second) == (2, 0, -2.5), "with momentum: the optimizer goes on with the moved parameters"
            assert opened(first) == (0, 0, 0.0)
    assert one.parameter.item() == -2.5


def test_without_a_reader_nothing_moves_and_buffers_are_used_again():
    answers = Answers(torch.zeros(3))
    place = answers.parameter.data_ptr()
    answers.open()
    assert answers.parameter.data_ptr() == place
    places = {place}
    for _ in range(10):
        lent = answers.lend()
        answers.open()
        places.add(answers.parameter.data_ptr())
        answers.give_back(lent)
    assert len(places) == 2 and answers.under_way == 0


def test_an_answer_says_whether_the_next_push_is_synchronous():
    one = shard(sync.Mixed(1), 1)
    with one.pull(0) as reply:
        assert opened(reply) == (0, 0, 0.0)
    push(one, 0, 0)
    with one.pull(0) as reply:
        assert opened(reply) == (1, 1, -1.0)


@pytest.mark.parametrize("index", [0, 1])
def test_answers_go_out_one_after_another_in_the_order_of_the_plan(index):
    one, answered, under_way = shard(sync.Synchronous(), 4, servers=2, index=index), [], []

    def read(worker):
        with one.pull(worker):
            under_way.append(worker)
            answered.append((worker, len(under_way)))
            time.sleep(1e-3)  # as if it took time to send
            under_way.remove(worker)

    for worker in range(3):
        push(one, worker, 0, rounds=1)
    threads = [threading.Thread(target=read, args=(worker,)) for worker in (2, 1, 0)]
    for thread in threads:
        thread.start()
    while len(one._waiting) < 3:
        time.sleep(1e-3)
    push(one, 3, 0, rounds=1)
    for thread in threads:
        thread.join()
    plan = [op.peer - 2 for op in ps.plan(4, 2).rows[index] if op.kind == "send"]
    assert [worker for worker, _ in answered] == [worker for worker in plan if worker != 3]
    assert {count for _, count in answered} == {1}


def test_asynchronous_answers_wait_for_nobody():
    one = shard(sync.Asynchronous(), 2)
    with one.pull(0), one.pull(1) as reply:
        assert opened(reply) == (0, 0, 0.0)


@pytest.mark.parametrize(("workers", "servers"), [(2, 2), (2, 3), (4, 2)])
def test_no_two_answers_share_a_link_while_another_is_idle(workers, servers):
    def fn():
        data = [(torch.ones(workers, 5), torch.zeros(workers, dtype=torch.long))] * 4
        return ps.train(model.build((5, 7, 3)), data, torch.optim.SGD, servers=servers, loss=loss, lr=0.1)

    loss = torch.nn.functional.cross_entropy
    trace = launch(fn, ranks=workers + servers, timeout=30).trace
    # With at least as many servers, a worker asks one after another; with fewer, a server answers so.
    for rank in range(servers, servers + workers) if servers >= workers else range(servers):
        kind = "recv" if servers >= workers else "send"
        for step in range(4):
            spans = sorted((s for s in trace.of(rank) if s.kind == kind and s.mb == step), key=lambda s: s.start_s)
            assert len(spans) == max(workers, servers)
            assert all(one.end_s <= two.start_s for one, two in itertools.pairwise(spans))
