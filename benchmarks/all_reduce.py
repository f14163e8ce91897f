"""Our all-reduce against gloo's own: ratios of times, in the same ranks, taken in turns.

    python benchmarks/all_reduce.py [--quick] [--door] [--algorithms ring,tree] [--ranks 2,4]

Both sides use one plain gloo group; with `--door` both go through the recording group that `launch` gives.

What was measured on 2 free cores stands in benchmarks/README.md (float32, torch 2.13): from 4 MiB on, medians of ring /
gloo between 0.93 and 1.13 over two runs, where a single turn scatters from 0.7 to 1.5. At 256 KiB and less with 2 ranks
the ring is behind: a step costs some 15 microseconds whatever its size. Two ranks exchange 1 to 8 MiB in one round.

What decides the time, and what was done about it:

- Nearly all of it is the kernel's copying into and out of loopback sockets; both sides copy the same bytes. The
  additions are about a tenth.
- gloo holds a pair's lock while it writes, and its event loop polls without sleeping while anything is waiting for a
  pair whose lock it cannot get. A rank that posts a receive while its neighbour writes costs the neighbour a core until
  the write is over. Posting all receives before the first send cut the polling from 3.8 to 1.5 million calls in
  200 all-reduces (4 ranks, 4 MiB), and the CPU time by a sixth. Posting them round by round took 1.1 to 1.4 times as
  long. At 2 ranks both directions share a pair, so there the polling stays.
- Messages below 2 MiB cost more in handling than the overlap of adding and sending saves; larger chunks are cut into
  pieces of 2 MiB. Above 16 MiB receives are posted round by round all the same, which bounds the scratch to two chunks.
- Scratch buffers are kept between calls: fresh memory costs a page fault for each 4 KiB.
- `group.send` in place of `dist.isend` saves 5 to 20 microseconds a message.
- A call right after the other side's is up to a tenth slower than one after its own; so each turn times a second call.
"""

import argparse
import statistics
import time
from typing import cast

import torch
import torch.distributed as dist

from parallel_lab import collectives, launch, progress

KIB, MIB = 2**10, 2**20
SIZES = [64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB]
ALGORITHMS = ["ring", "halving_doubling", "full_mesh", "tree", "star"]


def measure(sizes: list[int], algorithms: list[str], repetitions: dict[int, int], door: bool) -> dict:
    """On a rank: for each size and name, the seconds of each repetition; gloo's own and each algorithm take turns.

    A turn is two calls in a row, of which the second is timed: neither finds the caches as the other left them.
    """
    group = None if door else cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
    turns = [(size, i) for size in sizes for i in range(repetitions[size])]
    names = ["gloo", *algorithms]
    seconds: dict[tuple[int, str], list[float]] = {}
    for size, i in progress(turns, "all-reduce"):
        tensor = torch.zeros(size // 4)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            if i == 0:
                check_once(tensor.fill_(1.0), group, name)
                tensor.zero_()
            twice = [timed(tensor, group, name) for _ in range(2)]
            seconds.setdefault((size, name), []).append(twice[1])
    return seconds


def timed(tensor: torch.Tensor, group: dist.ProcessGroup | None, name: str) -> float:
    """The seconds of one call, all ranks starting together."""
    dist.barrier(group)
    began = time.perf_counter()
    call(tensor, group, name)
    return time.perf_counter() - began


def call(tensor: torch.Tensor, group: dist.ProcessGroup | None, name: str) -> None:
    """gloo's own all-reduce, or ours by the algorithm of that name."""
    if name == "gloo":
        dist.all_reduce(tensor, group=group)
    else:
        collectives.all_reduce(tensor, group, name)


def check_once(ones: torch.Tensor, group: dist.ProcessGroup | None, name: str) -> None:
    """AssertionError if the sum of ones is not the number of ranks everywhere."""
    call(ones, group, name)
    if (ones != dist.get_world_size()).any():
        raise AssertionError(f"{name} gave a wrong sum of {ones.nbytes} bytes")


def row(size: int, results: list[dict], algorithms: list[str]) -> str:
    """One line of the table: gloo's median, then each algorithm's ratios to gloo's time of the same turn."""
    slowest = {
        name: [max(t) for t in zip(*(r[size, name] for r in results), strict=True)] for name in ["gloo", *algorithms]
    }
    cells = [f"{statistics.median(slowest['gloo']) * 1e3:8.2f}"]
    for name in algorithms:
        ratios = [ours / theirs for ours, theirs in zip(slowest[name], slowest["gloo"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        best = min(slowest[name]) / min(slowest["gloo"])
        cells.append(f"{middle:5.2f} ({low:.2f}-{high:.2f}) {best:4.2f}")
    label = f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
    return f"{label:>8}  " + "  ".join(cells)


def main() -> None:
    """Reads the arguments, measures, prints one table for each number of ranks."""
    parser = argparse.ArgumentParser(description="our all-reduce against gloo's")
    parser.add_argument("--quick", action="store_true", help="up to 16 MiB, and fewer repetitions")
    parser.add_argument("--door", action="store_true", help="through the recording process group, both ours and gloo's")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    parser.add_argument("--ranks", default="2,4")
    options = parser.parse_args()
    algorithms = options.algorithms.split(",")
    sizes = SIZES[:-1] if options.quick else SIZES
    most = 20 if options.quick else 60
    repetitions = {size: max(7, min(most, 400 * MIB // size)) for size in sizes}
    print("Each cell: median of ours / gloo (quartiles), and the ratio of the two best times.")
    for ranks in map(int, options.ranks.split(",")):
        run = launch(measure, sizes, algorithms, repetitions, options.door, ranks=ranks, timeout=900.0)
        print(f"\n{ranks} ranks  gloo, ms  " + "  ".join(f"{name:>22}" for name in algorithms))
        for size in sizes:
            print(row(size, run.results, algorithms))


if __name__ == "__main__":
    main()
