"""Parameter servers on an emulated link: how much of it push and pull use, and a step beside a ring all-reduce.

    python benchmarks/parameter_server.py [--quick]

"Share of the link" is the bytes over the time, over the bandwidth, of the server's link: from an update to the last
answer, and from the first answer to the last gradient, which the worker's check for NaN is part of.

A step is a synchronous pull and push of every worker, with an update by SGD and no computation; "overlapped" is a sum
through the servers in pieces (`push_pull`). The ring is PyTorch's all-reduce among the workers, charged by the same
link. All processes share this machine's cores: where the bytes of a
step take them longer than the emulated link, a measured time is theirs.
"""

import argparse
import itertools
import statistics
import time

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import Link, launch
from parallel_lab import parameter_server as ps
from parallel_lab.synchronization import Synchronous
from parallel_lab.trace import Span, Trace

LINKS = {"100 Mbit/s, 1 ms": Link(1e-3, 12.5e6), "1 Gbit/s, 0.1 ms": Link(1e-4, 125e6), "4 Gbit/s": Link(0, 500e6)}
SIZES = (1_000_000, 4_000_000, 16_000_000, 40_000_000)
STEPS = (("100 Mbit/s, 1 ms", 4_000_000), ("1 Gbit/s, 0.1 ms", 16_000_000))
TRIES = 7
HALF_A_SECOND = 0.5  # short messages are repeated for so long: their medians scatter most


class Flat(nn.Module):
    """A model that is one vector of `size_bytes`, float32."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(size_bytes // 4))
        self.vector.grad = torch.ones_like(self.vector)


def serve_or_work(size: int, servers: int, tries: int) -> list[float]:
    """On each worker, the moments after each push but the first, which meets cold buffers."""
    model = Flat(size)
    if dist.get_rank() < servers:
        ps.serve(model, torch.optim.SGD, Synchronous(), servers=servers, lr=0.1)
        return []
    worker, moments = ps.Worker(model, servers=servers), []
    for _ in range(tries + 1):
        worker.pull()
        worker.push()
        moments.append(time.monotonic())
    worker.finish()
    return moments[1:]


def ring(size: int, workers: int, tries: int) -> list[float]:
    """On each rank: the seconds of each all-reduce among the first `workers` ranks."""
    group, tensor, seconds = dist.new_group(list(range(workers))), torch.ones(size // 4), []
    for _ in range(tries + 1):
        dist.barrier()
        began_s = time.monotonic()
        if dist.get_rank() < workers:
            dist.all_reduce(tensor, group=group)
        seconds.append(time.monotonic() - began_s)
    return seconds[1:]


def server_phases(trace: Trace) -> tuple[float, float]:
    """The median seconds of rank 0, the server: from an update to the last answer, from the first to the last push."""
    spans: dict[tuple[str, int], list[Span]] = {}
    for span in trace.of(0):
        spans.setdefault((span.kind, span.mb), []).append(span)
    pulls, pushes = [], []
    for kind, step in spans:
        if kind == "update" and step > 1:
            answered = [span.end_s for span in spans["send", step]]
            pulls.append(max(answered) - spans["update", step - 1][0].end_s)
            pushes.append(max(span.end_s for span in spans["recv", step]) - min(answered))
    return statistics.median(pulls), statistics.median(pushes)


def bandwidth(workers: int, links: list[str], sizes: tuple[int, ...], tries: int) -> None:
    """Prints the share of the link that pulls and pushes of all workers reach, through one server."""
    for name in links:
        link = LINKS[name]
        for size in sizes if link.bytes_per_s > 50e6 else sizes[:2]:
            repeats = max(tries, min(10 * tries, round(HALF_A_SECOND / link.seconds(size))))
            run = launch(serve_or_work, size, 1, repeats, ranks=1 + workers, link=link, timeout=300)
            found = [
                f"{1e3 * took_s:.1f} | {workers * size / took_s / link.bytes_per_s:.2f}"
                for took_s in server_phases(run.trace)
            ]
            print(f"| {name} | {1 + workers} | {size:,} | {found[0]} | {found[1]} |", flush=True)


def step_seconds(results: list, servers: int) -> float:
    """The median time between the ends of one step and the next, a step ending with its last worker's push."""
    ends = [max(step) for step in zip(*results[servers:], strict=True)]
    return statistics.median(late - early for early, late in itertools.pairwise(ends))


def overlapped(size: int, servers: int, pieces: int, tries: int) -> list[float]:
    """On each worker, the moments after each push and pull in pieces, of which the first meets cold buffers."""
    tensor, moments = torch.ones(size // 4), []
    for _ in range(tries + 1):
        ps.push_pull(tensor, servers=servers, pieces=pieces)
        moments.append(time.monotonic())
    return moments


def against_ring(workers: int, name: str, size: int, tries: int) -> None:
    """Prints a synchronous step through 1, 2 and 4 servers beside a ring, measured and predicted."""
    link = LINKS[name]
    turns = launch(ring, size, workers, tries, ranks=workers, link=link, timeout=300).results
    ring_s = statistics.median(max(turn) for turn in zip(*turns, strict=True))
    rows = [("ring", ps.formulas.ring_seconds(workers, size, link), ring_s)]
    for servers in (1, 2, 4):
        run = launch(serve_or_work, size, servers, tries, ranks=workers + servers, link=link, timeout=300)
        predicted_s = ps.formulas.step_seconds(workers, servers, size, link)
        through = f"{servers} server{'s' * (servers > 1)}"
        rows.append((through, predicted_s, step_seconds(run.results, servers)))
        pieces = min(8, ps.formulas.best_pieces(workers, servers, size, link))
        run = launch(overlapped, size, servers, pieces, tries, ranks=workers + servers, link=link, timeout=300)
        predicted_s = ps.formulas.overlapped_seconds(workers, servers, size, link, pieces)
        rows.append((f"{through}, {pieces} pieces", predicted_s, step_seconds(run.results, servers)))
    for through, predicted_s, took_s in rows:
        times = f"{predicted_s * 1e3:.1f} | {took_s * 1e3:.1f} | {took_s / predicted_s:.2f}"
        ratios = f"{predicted_s / rows[0][1]:.2f} | {took_s / ring_s:.2f}"
        print(f"| {name} | {workers} | {size:,} | {through} | {times} | {ratios} |", flush=True)


def crossovers(workers: int) -> None:
    """Prints how many servers a step needs to come near the ring's time, by the formulas."""
    name, size = STEPS[-1]
    ways = {"overlapped": ps.formulas.overlapped_seconds, "pull, then push": ps.formulas.step_seconds}
    for (way, seconds), within in itertools.product(ways.items(), (0.75, 1.0, 1.4, 2.0, 3.0)):
        fewest = ps.formulas.crossover(workers, size, LINKS[name], within, seconds)
        text = f"{fewest} servers" if fewest else "no number of servers"
        print(f"{workers} workers, {name}, {size:,} bytes, {way}: {text} for {within:g} times the ring's time or less")


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="parameter servers on an emulated link")
    parser.add_argument("--quick", action="store_true", help="one link and size, fewer repetitions")
    quick = parser.parse_args().quick
    tries = 3 if quick else TRIES
    links = list(LINKS)
    print("| link | ranks | bytes | pull, ms | share of the link | push, ms | share of the link |\n" + "|---" * 7 + "|")
    bandwidth(1, links[1:2] if quick else links, SIZES[1:2] if quick else SIZES, tries)
    bandwidth(3, links[1:2] if quick else links[2:], SIZES[1:2] if quick else SIZES, tries)
    print("\n| link | workers | bytes | through | predicted, ms | measured, ms | measured / predicted | ", end="")
    print("predicted / ring | measured / ring |\n" + "|---" * 9 + "|")
    for name, size in STEPS[:1] if quick else STEPS:
        for workers in (2, 4):
            against_ring(workers, name, size, tries)
    print()
    for workers in (4, 16):
        crossovers(workers)


if __name__ == "__main__":
    main()
