"""How close an emulated link comes to alpha + bytes / beta: messages and collectives, waited for at once or later.

    python benchmarks/link.py

The ratio is measured over predicted; predictions take over 5 ms. Of DDP it is the time that a backward pass takes
beyond the same pass of a second DDP that fills and empties its buckets too, but whose hook sends nothing; both until
the last rank is done, since no gradient can be averaged before.
"""

import statistics
import time
from typing import cast

import torch
import torch.distributed as dist
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import Link, launch
from parallel_lab.runtime import ring_cost

LINKS = {"100 Mbit/s, 1 ms": Link(1e-3, 12.5e6), "1 Gbit/s, 0.1 ms": Link(1e-4, 125e6), "4 Gbit/s": Link(0, 500e6)}
SIZES = (1_000_000, 4_000_000, 16_000_000)
TRIES = 9
FLOOR_S = 5e-3


def median(action, together: dist.ProcessGroup | None = None) -> float:
    """Median seconds of `action`, started on all ranks together; with a group, until all its ranks are done."""
    times = []
    for _ in range(TRIES):
        dist.barrier()
        began = time.perf_counter()
        action()
        if together:
            dist.barrier(together)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def send_nothing(_: object, bucket: dist.GradBucket) -> Future[torch.Tensor]:
    """A communication hook of DDP that divides by the number of ranks, as DDP does, and is done."""
    future: Future[torch.Tensor] = Future()
    future.set_result(bucket.buffer().div_(dist.get_world_size()))
    return future


def work(size: int) -> dict[str, float]:
    """Seconds of each kind of operation on `size` bytes."""
    x, rank = torch.ones(size // 4), dist.get_rank()
    models = [DistributedDataParallel(torch.nn.Linear(size // 4000, 1000, bias=False)) for _ in range(2)]
    models[1].register_comm_hook(None, send_nothing)
    data = torch.ones(1, size // 4000)
    plain = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))  # its barriers do not cross the emulated link
    backward, alone = (median(lambda model=model: model(data).sum().backward(), plain) for model in models)
    return {
        "message": median(lambda: dist.send(x, dst=1) if rank == 0 else dist.recv(x, src=0) if rank == 1 else None),
        "all_reduce": median(lambda: dist.all_reduce(x)),
        "all_reduce, asynchronous, twice": median(
            lambda: [work.wait() for work in [dist.all_reduce(x, async_op=True) for _ in range(2)]]
        ),
        "PyTorch's DDP": backward - alone,
    }


def predicted(kind: str, ranks: int, size: int, link: Link) -> float:
    """Seconds by the alpha-beta model."""
    if kind == "message":
        return link.seconds(size)
    return ring_cost("all_reduce", ranks, size).seconds(link) * (2 if "twice" in kind else 1)


def main() -> None:
    """Measures and prints the table."""
    print("| link | ranks | bytes | operation | predicted, ms | measured / predicted |")
    print("|---|---|---|---|---|---|")
    for name, link in LINKS.items():
        for ranks in (2, 4):
            for size in SIZES if link.bytes_per_s > 50e6 else SIZES[:2]:
                results = launch(work, size, ranks=ranks, link=link, timeout=300).results
                for kind in results[0]:
                    expected = predicted(kind, ranks, size, link)
                    if expected >= FLOOR_S:
                        took = max(result[kind] for result in results[:2])
                        print(
                            f"| {name} | {ranks} | {size:,} | {kind} | {1000 * expected:.1f} | {took / expected:.3f} |"
                        )


if __name__ == "__main__":
    main()
