"""How close an emulated link comes to alpha + bytes / beta: messages and collectives, waited for at once or later.

    python benchmarks/link.py

The ratio is measured over predicted; predictions take over 5 ms. All ranks read one clock. A measurement begins when
the last rank asks for the operation, because the model says nothing of how late a rank comes to it, and ends when the
last rank has it. PyTorch's DDP does so in its communication hook, which here does what its own does: divide the bucket
by the number of ranks, ask for the sum, and tell DDP when it is there.

The last column is the time without a link. An emulated link can only hold an operation back: where the loopback itself
needs more than two thirds of that time, the ratio, in brackets, is the loopback's and says nothing of the emulation.
"""

import statistics
import time
from collections.abc import Callable
from typing import cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import Link, launch, progress
from parallel_lab.runtime import ring_cost

LINKS = {"100 Mbit/s, 1 ms": Link(1e-3, 12.5e6), "1 Gbit/s, 0.1 ms": Link(1e-4, 125e6), "4 Gbit/s": Link(0, 500e6)}
SIZES = (1_000_000, 4_000_000, 16_000_000)
TRIES = 15
FLOOR_S = 5e-3
MESSAGE_RANKS = 2
SLOWER = 2 / 3  # where the loopback takes more of the predicted time, the link is not the slower of the two

Moments = list[tuple[float, float]]  # of each try: asked for, had


def timed(action: Callable[[], object]) -> Moments:
    """When this rank began and ended each try of `action`; a barrier before each lets the ranks begin together."""
    moments = []
    for _ in range(TRIES):
        dist.barrier()
        asked_s = time.monotonic()
        action()
        moments.append((asked_s, time.monotonic()))
    return moments


def message(x: torch.Tensor) -> None:
    """From rank 0 to rank 1."""
    if dist.get_rank() < MESSAGE_RANKS:
        dist.recv(x, src=0) if dist.get_rank() else dist.send(x, dst=1)


def twice_at_once(x: torch.Tensor) -> None:
    """Two asynchronous all-reduces, both under way before the first is waited for."""
    for work in [dist.all_reduce(x, async_op=True) for _ in range(2)]:
        cast(dist.Work, work).wait()


def ddp_bucket(size: int) -> Moments:
    """When PyTorch's DDP asked for the sum of its one bucket of `size` bytes in each backward, and when it had it."""
    model = DistributedDataParallel(torch.nn.Linear(size // 4000, 1000, bias=False), bucket_cap_mb=64)
    data, asked, had = torch.ones(1, size // 4000), [], []

    def hook(_: object, bucket: GradBucket) -> Future[torch.Tensor]:
        mean = bucket.buffer().div_(dist.get_world_size())
        asked.append(time.monotonic())
        work = cast(dist.Work, dist.all_reduce(mean, async_op=True))
        return work.get_future().then(arrived)

    def arrived(future: Future) -> torch.Tensor:
        had.append(time.monotonic())
        return future.value()[0]

    model.register_comm_hook(None, hook)  # pyright: ignore[reportArgumentType] (the state may be None)
    for _ in range(TRIES):
        dist.barrier()
        model(data).sum().backward()
    return list(zip(asked, had, strict=True))


def work(size: int) -> dict[str, Moments]:
    """The moments of each kind of operation on `size` bytes, on this rank."""
    x = torch.ones(size // 4)
    return {
        "message": timed(lambda: message(x)),
        "all_reduce": timed(lambda: dist.all_reduce(x)),
        "all_reduce, asynchronous, twice": timed(lambda: twice_at_once(x)),
        "PyTorch's DDP": ddp_bucket(size),
    }


def predicted(kind: str, ranks: int, size: int, link: Link) -> float:
    """Seconds by the alpha-beta model."""
    if kind == "message":
        return link.seconds(size)
    return ring_cost("all_reduce", ranks, size).seconds(link) * (2 if "twice" in kind else 1)


def measured(kind: str, results: list[dict[str, Moments]]) -> float:
    """Median seconds over the tries, from the last rank that asked to the last that had it."""
    taking_part = results[:MESSAGE_RANKS] if kind == "message" else results
    tries = zip(*(result[kind] for result in taking_part), strict=True)
    return statistics.median(max(had for _, had in one) - max(asked for asked, _ in one) for one in tries)


def main() -> None:
    """Measures and prints the table."""
    cases = [(name, link, ranks, size) for name, link in LINKS.items() for ranks in (2, 4) for size in SIZES]
    bare = {(ranks, size): launch(work, size, ranks=ranks).results for ranks in (2, 4) for size in SIZES}
    print("| link | ranks | bytes | operation | predicted, ms | measured / predicted | without a link, ms |")
    print("|---|---|---|---|---|---|---|")
    for name, link, ranks, size in progress(cases, "links"):
        if link.bytes_per_s < 50e6 and size > SIZES[1]:
            continue  # half a minute for what two sizes have shown
        results = launch(work, size, ranks=ranks, link=link, timeout=300).results
        for kind in results[0]:
            expected = predicted(kind, ranks, size, link)
            if expected >= FLOOR_S:
                ratio, alone = measured(kind, results) / expected, 1000 * measured(kind, bare[ranks, size])
                case = f"{name} | {ranks} | {size:,} | {kind}"
                shown = f"{ratio:.3f}" if alone < SLOWER * 1000 * expected else f"({ratio:.3f})"
                print(f"| {case} | {1000 * expected:.1f} | {shown} | {alone:.1f} |")


if __name__ == "__main__":
    main()
