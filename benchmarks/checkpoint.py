"""How long a save keeps training waiting: synchronous, asynchronous, and PyTorch's own, in the same ranks in turns.

    python benchmarks/checkpoint.py [--ranks 2] [--megabytes 200] [--turns 5]

Each rank has a shard of `--megabytes` in tensors of 4 MB. Four saves of it take turns, after one of each that does not
count: ours, awaited; the stall of ours, which is written behind; `torch.distributed.checkpoint.save`; the stall of its
`async_save`. Both sync each file; ours keep a checksum of it as well. A turn's time is that of the slowest rank, and
what is still being written is awaited before the next begins. Between two saves nothing is computed: a step beside the
writing thread would cost both of them time, which is not in the stall.

The limit: our stall is at most 0.25 of our synchronous save. Then, without a limit: what a checksum costs, in one
process, against the write that it belongs to; the kill points of four ways to save, all of them.
"""

import argparse
import functools
import hashlib
import os
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from parallel_lab import launch
from parallel_lab.systems.resilience import AsyncSaver
from parallel_lab.systems.resilience.savings import survey

MOST, TENSOR_BYTES = 0.25, 4_000_000
OURS, STALL, THEIRS, THEIR_STALL = "ours, awaited", "ours, its stall", "DCP save", "DCP async_save, its stall"


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the slowest rank, and what the call returned here."""
    dist.barrier()
    began_s = time.perf_counter()
    result = call()
    seconds = torch.tensor(time.perf_counter() - began_s)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return seconds.item(), result


def turns(where: Path, megabytes: int, count: int) -> dict[str, list[float]]:
    """The seconds of each way to save, turn by turn."""
    warnings.simplefilter("ignore")  # of torch, about what it will change in DCP
    shard = {f"{number} of {dist.get_rank()}": torch.randn(TENSOR_BYTES // 4) for number in range(megabytes // 4)}
    waited, behind = (AsyncSaver(where / name, keep=0) for name in ("waited", "behind"))
    theirs: Any = dist.new_group(backend="gloo")
    seconds: dict[str, list[float]] = {name: [] for name in (OURS, STALL, THEIRS, THEIR_STALL)}

    def awaited(step: int) -> None:
        waited.save(shard, step=step)
        waited.wait()

    for turn in range(count + 1):
        took = {OURS: timed(lambda turn=turn: awaited(turn))[0]}
        took[STALL] = timed(lambda turn=turn: behind.save(shard, step=turn))[0]
        behind.wait()
        took[THEIRS] = timed(lambda: save(shard, checkpoint_id=where / "theirs", process_group=theirs))[0]
        start = functools.partial(async_save, shard, checkpoint_id=where / "behind-theirs", process_group=theirs)
        took[THEIR_STALL], future = timed(start)
        future.result()
        for name in took if turn else ():
            seconds[name].append(took[name])
    return seconds


def checksums(megabytes: int) -> dict[str, float]:
    """Seconds to write and sync so many bytes, and to take each checksum of them; the fastest of three."""
    content = os.urandom(megabytes * 10**6)

    def write() -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            os.fsync(file.fileno())

    calls = {"write and fsync": write, "CRC32": lambda: zlib.crc32(content)}
    calls["SHA-256"] = lambda: hashlib.sha256(content).digest()
    found = {}
    for name, call in calls.items():
        times = []
        for _ in range(3):
            began_s = time.perf_counter()
            call()
            times.append(time.perf_counter() - began_s)
        found[name] = min(times)
    return found


def main() -> int:
    """Prints three tables; the exit code says whether the limit was kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("ranks", 2), ("megabytes", 200), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as disk:
        run = launch(
            turns, Path(disk), options.megabytes, options.turns, ranks=options.ranks, timeout=600, record=False
        )
    seconds = run[0]
    print(f"| {options.ranks} ranks, {options.megabytes} MB each | seconds | of ours, awaited |\n|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[OURS], strict=True))
        print(f"| {name} | {statistics.median(times):.3f} | {ratio:.2f} |")
    stall = statistics.median(a / b for a, b in zip(seconds[STALL], seconds[OURS], strict=True))
    stall_theirs = statistics.median(a / b for a, b in zip(seconds[THEIR_STALL], seconds[THEIRS], strict=True))
    print(f"\nstall of a save: ours {stall:.2f} of ours awaited, limit {MOST}; DCP's {stall_theirs:.2f} of DCP's save")
    print(f"\n| {options.megabytes} MB, one process | seconds |\n|---|---|")
    for name, took in checksums(options.megabytes).items():
        print(f"| {name} | {took:.3f} |")
    with tempfile.TemporaryDirectory() as disk:
        found = launch(survey, Path(disk), ranks=1, timeout=600)[0]
    print("\n| a kill at each call of a save | points | not survived |\n|---|---|---|")
    for name, points in found.items():
        print(f"| {name} | {len(points)} | {sum(not point.survived for point in points)} |")
    return int(stall > MOST or not all(point.survived for point in found["aside"]))


if __name__ == "__main__":
    sys.exit(main())
