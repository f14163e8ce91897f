"""Profiles of torch.profiler: synthetic ones with known answers, one made here, and real GPU runs against an oracle.

The real files are read where the checkout stands beside a folder shared/data; HolisticTraceAnalysis gets the same
events without what it counts in another way: `cuda_sync` events as activity of the GPU, the last step as none.
"""

import gzip
import json
import logging
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from parallel_lab import explain
from parallel_lab.performance import Breakdown, profile_trace, read_profile, replay
from parallel_lab.performance.torch_profile import events
from parallel_lab.trace import Trace

TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "gpu_traces"
REAL = ("a100_alexnet_1_rank", "a100_ddp_rank0_of_2", "rank0_of_128", "rank1_of_128")


def event(cat, name, ts, dur, **args):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "pid": 0, "tid": 7, "args": args}


def launched(number, call_ts, kernel_ts, dur, name="gemm", call_dur=4, stream=7):
    """A call of the host and its kernel."""
    return [
        event("cuda_runtime", "cudaLaunchKernel", call_ts, call_dur, correlation=number),
        event("kernel", name, kernel_ts, dur, correlation=number, stream=stream),
    ]


def written(tmp_path, listed, name="rank0.json", origin=1_700_000_000_000_000):
    path = tmp_path / name
    moved = [{**each, "ts": each["ts"] + origin} for each in listed]
    content = json.dumps({"schemaVersion": 1, "traceEvents": [*moved, {"ph": "M", "name": "process_name"}]})
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


def micro(parts, rank=0):
    """The parts that occur, in microseconds a step."""
    return {part: ns / 1000 for part, ns in parts.of_rank(rank)[0].ns.items() if ns}


def test_many_tiny_kernels_are_launch_overhead(tmp_path):
    """Kernels of 2 us, calls every 10 us: the GPU waits 8 us for each."""
    listed = [e for k in range(100) for e in launched(k, 10 * k, 10 * k + 5, 2)]
    parts = read_profile(written(tmp_path, listed, "rank0.json.gz"))
    assert micro(parts) == {"compute": 200, "launch": 99 * 8}
    found = explain(written(tmp_path, listed))
    assert found.cause == "launch" and "launching kernels one by one" in str(found)
    fused = next(each for each in found.suggestions if each.what == "launch many kernels at once")
    assert fused.then_s == pytest.approx(200e-6)


def test_a_pause_is_launch_overhead_only_under_its_rule(tmp_path):
    listed = [
        *launched(1, 0, 10, 20),  # until 30
        *launched(2, 5, 34, 6),  # it stood in the queue since 9: a pause of the device, until 40
        *launched(3, 35, 48, 2),  # its call ended at 39, before the pause: also not the launch's
        *launched(4, 52, 57, 3),  # called in the pause: 7 us of launch overhead, until 60
        *launched(5, 2060, 2065, 5),  # called in the pause, but 2 ms: the host did something else
    ]
    path = written(tmp_path, listed)
    assert micro(read_profile(path)) == {"compute": 36, "launch": 7, "other": 4 + 8 + 2005}
    assert micro(read_profile(path, launch_s=5e-3))["launch"] == 7 + 2005


def test_exposed_and_overlapped_communication_copies_data_and_steps(tmp_path):
    listed = [
        event("user_annotation", "ProfilerStep#3", 0, 100),
        event("user_annotation", "ProfilerStep#4", 100, 100),
        event("cpu_op", "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 0, 10),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 10, 5, stream=7, correlation=1),
        event("kernel", "gemm", 15, 45, stream=7, correlation=2),
        event("kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevComm*)", 40, 50, stream=9, correlation=3),
        event("gpu_memset", "Memset (Device)", 85, 10, stream=7, correlation=4),
        event("kernel", "gemm", 100, 100, stream=7, correlation=5),
        event("gpu_user_annotation", "ProfilerStep#3", 0, 90),
    ]
    parts = read_profile(written(tmp_path, listed))
    assert [row.step for row in parts.rows] == [3, 4]
    assert micro(parts) == {"compute": 45, "data": 10, "copy": 15, "exposed": 25, "launch": 5}
    assert parts.rows[0].overlapped_ns == 20_000
    trace = profile_trace(written(tmp_path, listed))
    assert [s.kind for s in trace.spans if s.lane == "send"] == ["all_reduce"]
    assert replay(trace, 3).step_s == pytest.approx(100e-6, abs=1e-9)


def test_several_ranks_of_one_collective_wait_for_the_last(tmp_path):
    """The clocks of the two files have nothing to do with each other."""

    def rank(wait):
        nccl = "ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)"
        computed = 100 - wait
        return [
            event("kernel", "gemm", 0, computed, stream=7, correlation=1),
            event("kernel", nccl, computed, wait + 20, stream=9, correlation=2),
        ]

    paths = [written(tmp_path, rank(60), "a.json"), written(tmp_path, rank(0), "b.json", origin=5)]
    parts = read_profile(*paths)
    assert micro(parts, 0) == {"compute": 40, "straggler": 60, "exposed": 20}
    assert micro(parts, 1) == {"compute": 100, "exposed": 20}
    assert micro(read_profile(paths[0])) == {"compute": 40, "exposed": 80}, "one file alone does not tell"


def test_no_profile(tmp_path):
    for name, content in (("a.json", "{}"), ("b.json", "no json"), ("c.json", "[1]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name} is no trace of torch.profiler"):
            read_profile(tmp_path / name)
    with pytest.raises(ValueError, match=r"nothing in .* took time"):
        read_profile(written(tmp_path, []))


def test_a_profile_of_the_cpu_made_here(tmp_path):
    model = torch.nn.Linear(64, 64)
    loader = DataLoader(torch.randn(6, 4, 64), batch_size=2)
    path = tmp_path / "cpu.json"
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        schedule=torch.profiler.schedule(wait=0, warmup=1, active=2, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
    ) as profiler:
        for x in loader:
            model(x).sum().backward()
            profiler.step()
    parts = read_profile(path)
    for row in parts.rows:
        assert sum(row.ns.values()) == row.step_ns
    assert [row.step for row in parts.rows] == [1, 2]
    assert parts.seconds("compute") > 0 and parts.seconds("data") > 0
    listed = json.loads(path.read_text())["traceEvents"]
    assert len([e for e in listed if e.get("ph") == "X"]) == len(list(events(path)))
    assert "What to try" in str(explain(path))


@pytest.mark.parametrize("name", REAL)
def test_parity_with_holistic_trace_analysis(name, tmp_path):
    source = TRACES / f"{name}.json.gz"
    if not source.exists():
        pytest.skip(f"no {source}: the profiles of real GPU runs are not part of the project")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = pytest.importorskip("hta.trace_analysis")
        logging.getLogger("hta").setLevel(logging.ERROR)
        with gzip.open(source, "rt") as file:
            content = json.load(file)
        content["traceEvents"] = [
            {**e, "ts": int(e["ts"]), "dur": int(e["dur"])} if e.get("ph") == "X" else e
            for e in content["traceEvents"]
            if e.get("cat") != "cuda_sync" and "ProfilerStep" not in str(e.get("name"))
        ]
        path = tmp_path / "trace.json"
        path.write_text(json.dumps(content))
        oracle = analysis.TraceAnalysis(trace_dir=str(tmp_path))
        temporal = oracle.get_temporal_breakdown(visualize=False).iloc[0]
        beside = oracle.get_comm_comp_overlap(visualize=False).iloc[0]["comp_comm_overlap_pctg"]
    trace = profile_trace(path)
    on_gpu = Trace(1, tuple(s for s in trace.spans if s.kind not in ("launch", "data")))
    parts = Breakdown.of(on_gpu)
    (row,) = parts.rows
    assert row.step_ns == temporal["kernel_time(us)"] * 1000
    assert row.ns["other"] == temporal["idle_time(us)"] * 1000
    assert row.ns["compute"] == temporal["compute_time(us)"] * 1000
    assert row.ns["copy"] + row.ns["exposed"] == temporal["non_compute_time(us)"] * 1000
    for part, percent in (("other", "idle_time_pctg"), ("compute", "compute_time_pctg")):
        assert round(100 * parts.share(part), 2) == pytest.approx(temporal[percent], abs=0.011)
    if sent := [s for s in trace.spans if s.lane == "send"]:
        covered = parts.seconds("overlapped") / union_s(sent)
        assert 100 * covered == pytest.approx(beside, abs=0.01)


def union_s(spans):
    total, until = 0.0, 0.0
    for start, end in sorted((s.start_s, s.end_s) for s in spans):
        total, until = total + max(0.0, end - max(start, until)), max(until, end)
    return total


def test_two_real_ranks_of_128(tmp_path):
    """Both ranks' steps sum up; what they wait for each other is told apart from what the network takes."""
    paths = [TRACES / f"rank{rank}_of_128.json.gz" for rank in range(2)]
    if not all(path.exists() for path in paths):
        pytest.skip(f"no {paths[0]}: the profiles of real GPU runs are not part of the project")
    together = read_profile(*paths)
    assert [(row.rank, row.step) for row in together.rows] == [(0, 551), (0, 552), (1, 551), (1, 552)]
    for rank, path in enumerate(paths):
        alone = read_profile(path)
        assert [sum(row.ns.values()) for row in together.of_rank(rank)] == [row.step_ns for row in alone.rows]
        waits = together.seconds("straggler", rank)
        assert waits > 0
        assert waits + together.seconds("exposed", rank) == pytest.approx(alone.seconds("exposed"), rel=1e-6)
