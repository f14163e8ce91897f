"""What GPUs and NCCL need of the lab, on stand-ins: these tests run where there is neither."""

import pickle
import sys
import threading
import time
from types import CodeType, SimpleNamespace

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch.futures import Future

from parallel_lab import launch
from parallel_lab.runtime import choose_device, rank_device, wire
from parallel_lab.runtime.device import local_device
from parallel_lab.runtime.rank import gpu, main, stage
from parallel_lab.runtime.rank.calls import DONE, Call
from parallel_lab.runtime.rank.gpu import Stopwatch
from parallel_lab.runtime.rank.work import CollectiveWork
from parallel_lab.trace import span, tag
from parallel_lab.trace.record import Recorder, install


def test_synchronous_calls_work_where_the_backend_gives_no_handle_for_them():
    class Nccl:
        """As NCCL since torch 2.8: a handle for asynchronous calls alone."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            def call(*arguments, **options):
                settings = next(iter(options.values()), arguments[-1] if arguments else None)
                work = getattr(self.inner, name)(*arguments, **options)
                return work if settings.asyncOp else work.wait() and None

            return call

    def fn():
        dist.group.WORLD.inner = Nccl(dist.group.WORLD.inner)
        x, both = torch.ones(2), torch.zeros(4)
        dist.all_reduce(x)
        dist.broadcast(x, 0)
        dist.all_gather_into_tensor(both, x)
        dist.reduce_scatter_tensor(x, both)
        dist.barrier()
        return x.tolist()

    assert launch(fn, ranks=2).results == [[4.0, 4.0]] * 2


def gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)


def test_nccl_is_taken_where_each_rank_has_a_gpu_and_none_may_fail(monkeypatch):
    gpus(monkeypatch, 4)
    assert choose_device(4).backend == "nccl"
    assert choose_device(1).backend == "gloo"
    assert (choose_device(4, may_fail=True).backend, choose_device(5).backend) == ("gloo", "gloo")
    assert "take turns" in choose_device(5).why
    for local, world, backend, place in (("4", "4", "nccl", 3), ("6", "6", "gloo", 1), ("1", "2", "nccl", 0)):
        for name, value in (("LOCAL_WORLD_SIZE", local), ("WORLD_SIZE", world), ("LOCAL_RANK", str(int(local) - 1))):
            monkeypatch.setenv(name, value)
        assert local_device().backend == backend
        assert rank_device() == torch.device("cuda", place), "never a GPU that is not there"


def test_what_goes_through_host_memory():
    on_gpu, on_cpu = SimpleNamespace(is_cuda=True), SimpleNamespace(is_cuda=False)
    staged = {
        backend: [
            m for m in ("allreduce", "allreduce_coalesced", "allgather", "send") if stage.needed(m, backend, [on_gpu])
        ]
        for backend in ("gloo", "nccl")
    }
    assert staged == {"gloo": ["allreduce_coalesced", "allgather", "send"], "nccl": ["send"]}
    assert not stage.needed("send", "gloo", [on_cpu])


def test_what_is_only_written_is_not_copied_out_and_what_is_read_is_not_copied_back():
    written, read = torch.full((2,), 1.0), torch.full((2,), 2.0)
    (out, given), back = stage.to_host("all_gather", (written, read))
    assert torch.equal(given, read)
    out.fill_(7)
    given.fill_(9)
    back()
    assert (written.tolist(), read.tolist()) == ([7, 7], [2, 2])
    (staged,), back = stage.to_host("send", (read,))
    staged.fill_(9)
    back()
    assert read.tolist() == [2, 2]


def handle(over, after, outputs):
    inner = SimpleNamespace(wait=lambda: True, result=lambda: ["host copies"])
    call = Call("all_gather", "", (0, 1), 0, 8, -1, "")
    keeper = Recorder()
    return CollectiveWork(inner, call, keeper, keeper.issue("all_gather", group=""), over, after, outputs), call


def test_a_future_of_staged_work_completes_after_the_result_is_in_its_place():
    seen, raw, mine = [], Future(), [torch.zeros(1)]
    work, call = handle(raw, lambda: (time.sleep(0.05), seen.append("copied back")), mine)
    threading.Thread(target=raw.set_result, args=(["host copies"],)).start()
    assert work.get_future().wait() is mine and seen == ["copied back"]
    assert work.result() is mine and call.state == DONE


def test_an_error_of_copying_back_reaches_the_caller():
    def fails():
        raise RuntimeError("the GPU is gone")

    raw = Future()
    work, _ = handle(raw, fails, [torch.zeros(1)])
    raw.set_result([])
    for wait in (work.wait, work.get_future().wait):
        with pytest.raises(RuntimeError, match="the GPU is gone"):
            wait()


def test_a_handle_of_nccl_is_over_when_the_gpu_is(monkeypatch):
    reached = threading.Event()
    event = SimpleNamespace(record=lambda: None, synchronize=reached.wait)
    monkeypatch.setattr(gpu, "_side_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: threading.Lock())
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    future = gpu.end_of(SimpleNamespace(wait=lambda: True, result=lambda: ["x"]))
    assert not future.done(), "the work is queued, and not done"
    reached.set()
    assert future.wait() == ["x"]


def test_the_limit_of_memory_comes_after_the_context(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(str(device)))
    main._take_gpu(torch.device("cuda", 1), at_once=True)
    main._take_gpu(torch.device("cuda", 0), at_once=False)
    assert done == ["cuda:1"], "a context that nobody needs yet is not made"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 800))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", done.append)
    monkeypatch.setattr(sys, "platform", "other")
    main.limit_memory(200)
    assert done[-1] == 0.25


class Ticks:
    """A device that is 10 s behind the lines that queue its work."""

    def mark(self):
        return time.monotonic() + 10

    def seconds(self, mark):
        return mark


def test_spans_of_computing_have_the_moments_of_the_device():
    keeper = Recorder(began_s=time.monotonic())
    keeper.stopwatch = Ticks()
    old = install(keeper)
    try:
        with span("forward"):
            pass
        keeper.complete(keeper.issue("send", peer=1, lane="send"))
    finally:
        install(old)
    forward, send = keeper.trace(1).spans
    assert 10 <= forward.start_s <= forward.end_s < 20 and send.end_s < 10


def test_a_stopwatch_turns_events_into_seconds(monkeypatch):
    clock = iter([0.0, 250.0])

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at_ms = next(clock)

        def synchronize(self):
            pass

        def elapsed_time(self, other):
            return other.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Stopwatch()
    assert watch.mark() is None, "no context is made for it"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    before_s = time.monotonic()
    assert before_s + 0.25 <= watch.seconds(watch.mark()) <= time.monotonic() + 0.25


def test_hooks_on_a_thread_of_autograd_have_the_tags_around_backward():
    keeper, found = Recorder(), []
    old = install(keeper)
    try:
        with tag(part=3):
            for inside in (True, False):
                keeper.in_backward = lambda inside=inside: inside
                thread = threading.Thread(target=lambda: found.append(keeper.names))
                thread.start()
                thread.join()
    finally:
        install(old)
    assert found == [{"part": 3}, {}]


def test_code_keeps_its_file(monkeypatch):
    def nameless(code):
        make, arguments, *rest = plain(code.replace(co_filename="<dynamic-code>"))
        return make, arguments, *rest

    plain = cloudpickle.Pickler._dispatch_table[CodeType]
    monkeypatch.setitem(cloudpickle.Pickler._dispatch_table, CodeType, nameless)  # as cloudpickle 3.1.3 does
    outer = pickle.loads(wire.dumps(lambda: lambda: 7))
    assert outer.__code__.co_filename == outer().__code__.co_filename == __file__


def test_what_was_staged_arrives_in_a_tensor_that_wants_a_gradient_too():
    taken = torch.zeros(3, requires_grad=True)
    ([staged],), back = stage.to_host("recv", ([taken],))
    staged.fill_(2)
    back()
    assert taken.tolist() == [2.0] * 3 and taken.is_leaf
