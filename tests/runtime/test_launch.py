"""`launch`: what goes in, what comes out, and that two at once do not meet."""

import socket
import sys
import threading
import time

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Delay, launch, progress, span
from parallel_lab.runtime import LaunchError, choose_device, make_mesh, rank_device
from parallel_lab.runtime.kernel.output import Bar
from parallel_lab.trace import recorder


def total(x, scale=1.0):
    x = x * scale * (dist.get_rank() + 1)
    dist.all_reduce(x)
    return x


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_arguments_and_results_travel(ranks):
    run = launch(total, torch.arange(3.0), ranks=ranks, scale=2.0)
    expected = torch.arange(3.0) * 2 * sum(range(1, ranks + 1))
    assert len(run) == ranks
    assert all(torch.equal(result, expected) for result in run.results)
    assert torch.equal(run[ranks - 1], expected)


def test_lambdas_and_closures_run():
    base = [10]
    assert launch(lambda: base[0] + dist.get_rank(), ranks=3).results == [10, 11, 12]


def test_output_is_kept_and_replayed_in_rank_order(capsys):
    def fn():
        time.sleep(0.1 * (2 - dist.get_rank()))
        print("hello")

    run = launch(fn, ranks=3)
    assert run.output == ["hello\n"] * 3
    assert capsys.readouterr().out == "[rank 0] hello\n[rank 1] hello\n[rank 2] hello\n"


def test_of_a_line_that_is_written_over_the_last_state_is_shown(capsys):
    def fn():
        for tick in range(200):
            sys.stderr.write(f"\r{tick}/200 \x0b\u2028")
        sys.stderr.write("\rdone\r\n\nnext\n")
        for tick in range(9):  # a bar under a bar
            sys.stderr.write(f"\router {tick}\n\rinner {tick}\x1b[A")
        sys.stderr.write("\n\n")

    launch(fn, ranks=2)
    lines = ("done", "", "next", "outer 8", "inner 8")
    assert capsys.readouterr().out == "".join(f"[rank {r}] {line}\n" for r in (0, 1) for line in lines)


def test_a_slice_leaves_the_rest_of_its_storage_behind():
    big = torch.arange(1_000_000.0)
    whole = torch.nn.Parameter(big.clone(), requires_grad=False)
    part = torch.nn.Parameter(big[3:9].view(2, 3).t())
    part.note = "kept"

    def fn(given, part, whole, tied):
        sizes = [x.untyped_storage().nbytes() for x in (given, part, whole)]
        facts = (type(part), part.requires_grad, part.note, part.tolist(), tied is part, whole.requires_grad)
        return sizes, facts, torch.zeros(1_000_000)[:1]

    sizes, facts, back = launch(fn, big[5:15], part, whole, part, ranks=1)[0]
    assert sizes == [40, 24, whole.nbytes] and back.untyped_storage().nbytes() == 4
    assert facts == (torch.nn.Parameter, True, "kept", part.tolist(), True, False)


def test_no_limit_of_time():
    assert launch(total, torch.ones(1), ranks=2, timeout=float("inf"))[0] == 3.0


def recorded(fn, **options):
    run = launch(fn, ranks=2, **options)
    return len(run.trace.spans), len(run.trace.memory), run.trace.left_out, repr(run).partition(";")[2]


def test_recording_is_switched_off_and_bounded(monkeypatch):
    def fn(limit=None, off=False):
        recorder().limit = limit or recorder().limit
        recorder().enabled &= not off
        for _ in range(10):
            with span("forward"):
                dist.all_reduce(torch.ones(1))
            recorder().sample(1)

    assert recorded(fn) == (40, 20, 0, "")
    assert recorded(lambda: fn(limit=5)) == (10, 10, 2 * (15 + 5), " 40 spans were not kept>")
    assert recorded(fn, record=False) == recorded(lambda: fn(off=True)) == (0, 0, 0, "")
    monkeypatch.setenv("PARALLEL_LAB_RECORD", "0")  # speaks to ranks of torchrun alone
    assert recorded(fn) == (40, 20, 0, "")


def test_variables_of_torchrun_that_were_left_behind_are_named(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    left = {"TORCHELASTIC_RUN_ID": "none", "RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in left.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(LaunchError, match=rf"did not meet at 127.0.0.1:{port} within 1 s.*del os.environ"):
        launch(total, torch.ones(1), timeout=1)


def test_one_thread_and_the_same_seed_on_every_rank():
    results = launch(lambda: (torch.get_num_threads(), torch.rand(2).tolist()), ranks=2, seed=7).results
    assert results[0] == results[1]
    assert results[0][0] == 1
    assert results[0] != launch(lambda: (torch.get_num_threads(), torch.rand(2).tolist()), ranks=2, seed=8).results[0]


def test_two_at_once():
    runs = {}

    def start(name, ranks):
        runs[name] = launch(total, torch.full((4,), name), ranks=ranks)

    threads = [threading.Thread(target=start, args=(name, ranks)) for name, ranks in ((1.0, 2), (3.0, 3), (5.0, 4))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [runs[name][0][0].item() for name in (1.0, 3.0, 5.0)] == [3.0, 18.0, 50.0]


def test_the_trace_counts_bytes_messages_and_work():
    def fn():
        with span("forward", part=2, mb=1):
            x = torch.ones(1000)
        if dist.get_rank() == 0:
            dist.send(x, dst=1)
        elif dist.get_rank() == 1:
            dist.recv(x, src=0)
        dist.all_reduce(x)

    trace = launch(fn, ranks=4).trace
    assert [trace.bytes_sent(rank) for rank in range(4)] == [4000 + 6000, 6000, 6000, 6000]
    assert [trace.messages(rank) for rank in range(4)] == [7, 6, 6, 6]
    assert [s.name for s in trace.of(1)] == ["forward", "recv", "all_reduce"]
    assert [str(op) for op in trace.plan().rows[0]][:1] == ["2F1"]
    assert all(s.end_s >= s.start_s for s in trace.spans)
    assert all(s.line.startswith("test_launch.py, line ") for s in trace.spans if s.kind != "F")


def test_progress_moves_a_bar(monkeypatch):
    shown = []
    monkeypatch.setattr(Bar, "_show", lambda self, text: shown.append(text))
    launch(lambda: [time.sleep(0.1) for _ in progress(range(3), label="steps")], ranks=2)
    assert shown[-1] == f"steps [{'#' * 30}] 3 of 3"
    assert len(shown) >= 4


def test_a_rank_that_returns_early_stays_connected():
    def fn():
        if dist.get_rank() == 0:
            return dist.send(torch.ones(8), dst=1)
        time.sleep(0.3)
        dist.recv(x := torch.zeros(8), src=0)
        return x.sum().item()

    assert launch(fn, ranks=2)[1] == 8


@pytest.mark.parametrize(("fn", "words"), [(3, "launch needs a function"), (None, "launch needs a function")])
def test_what_is_no_function_is_refused(fn, words):
    with pytest.raises(TypeError, match=words):
        launch(fn)


@pytest.mark.parametrize("name", ["timeout", "still_s"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), None, "5"])
def test_a_time_that_is_none_is_refused(name, seconds):
    with pytest.raises(ValueError, match=f"{name}=.*: expected seconds above 0"):
        launch(int, **{name: seconds})


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 2**32}, {"seed": 0.5}, {"may_fail": 0}, {"may_fail": [4]}])
def test_a_seed_or_a_rank_that_is_none_is_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*: expected"):
        launch(int, **options)


def test_devices():
    assert choose_device(2, "cpu").backend == "gloo"
    with pytest.raises(ValueError, match="expected one of auto, cpu, cuda"):
        choose_device(2, "gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU"):
            launch(int, device="cuda")
    assert launch(lambda: rank_device().type, ranks=1, device="cpu").results == ["cpu"]


def test_meshes():
    def fn():
        mesh = make_mesh(dp=2, tp=2)
        x = torch.tensor([float(dist.get_rank())])
        dist.all_reduce(x, group=mesh.get_group("tp"))
        with pytest.raises(ValueError, match="makes 6 ranks, but there are 4"):
            make_mesh(dp=2, tp=3)
        for axes in ({}, {"dp": -2, "tp": -2}, {"dp": 4.0}, {"dp": 0}):
            with pytest.raises(ValueError, match="expected for each axis how many ranks"):
                make_mesh(**axes)
        return x.item()

    assert launch(fn, ranks=4).results == [1.0, 1.0, 5.0, 5.0]


def test_a_slow_rank_makes_the_others_wait():
    def fn():
        dist.barrier()  # the ranks begin together: what they wait from here on is the delay
        dist.barrier()

    faults = [Delay(rank=1, kind="barrier", nth=1, seconds=1.0)]
    trace = launch(fn, ranks=3, faults=faults).trace
    waits = [trace.of(rank)[-1].wait_s for rank in range(3)]
    assert min(waits[0], waits[2]) > waits[1]
    assert min(waits[0], waits[2]) > 0.2
