"""Our all-reduce against gloo's own: ratios of times, in the same ranks, taken in turns.

    python benchmarks/all_reduce.py [--quick] [--door] [--algorithms ring,tree] [--ranks 2,4]

Both sides use one plain gloo group; with `--door` both go through the recording group that `launch` gives.

What was measured on 2 free cores stands in benchmarks/README.md (float32, torch 2.13). A single turn scatters from 0.7
to 1.5 and launches differ by a tenth, so turns of several launches are pooled, and gloo takes part twice: "gloo again"
says how far a ratio strays where nothing differs. At 1 MiB and less with 2 ranks the ring is behind: with its caches
full of the tensor, Python needs 0.1 ms for its part of a call, which is done in the calling thread.

What decides the time, and what was done about it:

- Nearly all of it is the kernel's copying into and out of loopback sockets; both sides copy the same bytes. The
  additions are about a tenth.
- gloo holds a pair's lock while it writes, and its event loop polls without sleeping while anything is waiting for a
  pair whose lock it cannot get. A rank that posts a receive while its neighbor writes costs the neighbor a core until
  the write is over. Posting all receives before the first send cut the polling from 3.8 to 1.5 million calls in
  200 all-reduces (4 ranks, 4 MiB), and the CPU time by a sixth. Posting them round by round took 1.1 to 1.4 times as
  long.
- At 2 ranks both directions share a pair, so there the polling stayed: 1.05 to 1.3 times gloo's time at 4 MiB. With a
  second group for the other direction (`collectives/lanes.py`) it is below gloo's.
- Messages below 4 MiB cost more in handling than the overlap of adding and sending saves; larger chunks are cut into
  pieces of 4 MiB. Above 16 MiB receives are posted round by round all the same, which bounds the scratch to two chunks.
- Scratch buffers are kept between calls: fresh memory costs a page fault for each 4 KiB.
- `group.send` instead of `dist.isend` saves 5 to 20 microseconds per message.
- A call right after the other side's is up to a tenth slower than one after its own; so each turn times a second call,
  and the order of a turn is drawn anew.
"""

import argparse
import random
import statistics
import time
from typing import cast

import torch
import torch.distributed as dist

from parallel_lab import collectives, launch, progress

KIB, MIB = 2**10, 2**20
SIZES = [64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB]
LAUNCHES = 5
AGAIN = "gloo again"
ALGORITHMS = ["ring", "recursive_doubling", "halving_doubling", "full_mesh", "tree", "star"]


def measure(sizes: list[int], algorithms: list[str], repetitions: dict[int, int], door: bool) -> dict:
    """On a rank: for each size and name, the seconds of each repetition; gloo's own and each algorithm take turns.

    A turn is two calls in a row, of which the second is timed: neither finds the caches as the other left them.
    """
    group = None if door else cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
    turns = [(size, i) for size in sizes for i in range(repetitions[size])]
    names, order = ["gloo", AGAIN, *algorithms], random.Random(0)  # the same order on every rank
    seconds: dict[tuple[int, str], list[float]] = {}
    for size, i in progress(turns, "all-reduce"):
        tensor = torch.zeros(size // 4)
        for name in order.sample(names, len(names)):
            if i == 0:
                check_once(tensor.fill_(1.0), group, name)
                tensor.zero_()
            twice = [timed(tensor, group, name) for _ in range(2)]
            seconds.setdefault((size, name), []).append(twice[1])
    return seconds


def pooled(launches: tuple[dict, ...]) -> dict:
    """A rank's measurements of several launches as if they were of one."""
    return {key: [second for launched in launches for second in launched[key]] for key in launches[0]}


def timed(tensor: torch.Tensor, group: dist.ProcessGroup | None, name: str) -> float:
    """The seconds of one call, all ranks starting together."""
    dist.barrier(group)
    began = time.perf_counter()
    call(tensor, group, name)
    return time.perf_counter() - began


def call(tensor: torch.Tensor, group: dist.ProcessGroup | None, name: str) -> None:
    """gloo's own all-reduce, or ours by the algorithm of that name."""
    if name in ("gloo", AGAIN):
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
        name: [max(t) for t in zip(*(r[size, name] for r in results), strict=True)]
        for name in ["gloo", AGAIN, *algorithms]
    }
    cells = [f"{statistics.median(slowest['gloo']) * 1e3:8.2f}"]
    for name in [AGAIN, *algorithms]:
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
    most = 20 if options.quick else 100
    repetitions = {size: max(7, min(most, 10 * most * MIB // size)) for size in sizes}
    print("Each cell: median of ours / gloo (quartiles), and the ratio of the two best times.")
    for ranks in map(int, options.ranks.split(",")):
        arguments = (sizes, algorithms, repetitions, options.door)
        runs = [launch(measure, *arguments, ranks=ranks, timeout=900.0).results for _ in range(LAUNCHES)]
        results = [pooled(mine) for mine in zip(*runs, strict=True)]
        print(f"\n{ranks} ranks  gloo, ms  " + "  ".join(f"{name:>22}" for name in [AGAIN, *algorithms]))
        for size in sizes:
            print(row(size, results, algorithms))


if __name__ == "__main__":
    main()
