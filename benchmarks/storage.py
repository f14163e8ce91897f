"""How fast each kind of storage is on this machine, and whether a loader keeps four ranks fed from it.

    python benchmarks/storage.py

1. Four real ranks, each step 40 ms of a device (slept, so that two cores do for four ranks) and an all-reduce. Steps a
   second with the data in memory, in local files, and in an object store behind an emulated link. All three run in the
   same ranks in turns; the ratio to memory is the median over the turns, the first shard's wait included, and so is the
   part of the time in which rank 0 waited for a batch. The limit of the ratio is 0.95 for what is fetched ahead.
2. Every store that can run here, by the size of objects and the number of readers. *Cold* reads ask the kernel to drop
   the file from this machine's page cache first; what a chunk server's own disk has cached stays, since all servers run
   on this machine. JuiceFS is read cold on the other mount, whose cache is empty.
3. Readers in parallel over the emulated link, beside the formula.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import numpy as np
import torch
import torch.distributed as dist

from parallel_lab import Link, launch, progress
from parallel_lab.systems.storage import Far, Local, Memory, Store, formats, formulas, measure, reader, servers
from parallel_lab.systems.storage.s3 import S3
from parallel_lab.trace.units import format_bytes, format_seconds

LIMIT, TURNS = 0.95, 3
RANKS, SHARDS, STEPS_PER_SHARD, BATCH_BYTES = 4, 16, 5, 200_000  # shards of each rank
COMPUTE_S, LINK = 0.040, Link(20e-3, 25e6, gap_s=0)
SIZES = {4096: 200, 64 * 1024: 200, 2**20: 50, 8 * 2**20: 10}  # objects of each
QUICK = Link(5e-3, 200e6, gap_s=0)


def prepared(store: Store) -> list[str]:
    """Writes the shards of all ranks: tar files of batches."""
    draws = np.random.default_rng(0)
    batches = [(f"{number:05d}", draws.bytes(BATCH_BYTES)) for number in range(RANKS * SHARDS * STEPS_PER_SHARD)]
    return formats.write_shards(store, "train", batches, STEPS_PER_SHARD)


def trained(shards: Iterable[bytes]) -> tuple[float, float]:
    """Steps a second, and the part of the time in which this rank waited for a batch.

    A step is a batch, the device's time, and an all-reduce.
    """
    gradient, steps, waited_s = torch.zeros(25_000), 0, 0.0
    dist.barrier()
    began_s = asked_s = time.perf_counter()
    for ((_, batch),) in reader.unpacked(shards, formats.from_tar, 1):
        waited_s += time.perf_counter() - asked_s
        gradient += int(np.frombuffer(batch, dtype=np.uint8).sum())
        time.sleep(COMPUTE_S)
        dist.all_reduce(gradient)
        steps += 1
        asked_s = time.perf_counter()
    dist.barrier()
    took_s = time.perf_counter() - began_s
    return steps / took_s, waited_s / took_s


def in_turns(stores: dict[str, Store], keys: list[str]) -> dict[str, list[tuple[float, float]]]:
    """For each way to get the shards its steps a second and the part waited, turn by turn."""
    mine = reader.of_rank(keys, dist.get_rank(), dist.get_world_size())
    near = Memory()
    for key in mine:
        near.put(key, stores["local files"].get(key))
    found: dict[str, list[tuple[float, float]]] = {}
    for turn in range(TURNS):
        ways = {"memory": map(near.get, mine)}
        for name, store in stores.items():
            ways |= {f"{name}, ahead": reader.fetched(store, mine, readers=2, ahead=4), name: map(store.get, mine)}
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            found.setdefault(name, []).append(trained(ways[name]))
    for store in stores.values():
        store.close()
    return found


def fed(local: Local, objects: S3 | None) -> bool:
    """Prints the first table, and says whether what is fetched ahead keeps the limit."""
    keys, stores = prepared(local), {"local files": local}
    if objects is not None:
        prepared(objects)
        stores["object store over a link"] = Far(objects, LINK)
    found = launch(in_turns, stores, keys, ranks=RANKS, timeout=300)[0]
    print("| data | fetched | steps/s | of what memory gives, median of the turns | waited for data |")
    print("|---|---|---|---|---|")
    kept = True
    for name, turns in found.items():
        ratio = statistics.median(here[0] / memory[0] for here, memory in zip(turns, found["memory"], strict=True))
        rate, waited = (statistics.median(each) for each in zip(*turns, strict=True))
        where, _, how = name.partition(", ")
        print(f"| {where} | {how or 'in the step'} | {rate:.1f} | {ratio:.3f} | {waited:.1%} |")
        kept &= ratio >= LIMIT or how != "ahead"
    return kept


def pairs(stack: ExitStack, folder: str) -> Iterator[tuple[str, Store, Store]]:
    """Each store that can run here, with what it is read by: itself, or another node."""
    yield "local files", Local(f"{folder}/local", sync=True), Local(f"{folder}/local")
    for name in ("moosefs", "s3", "juicefs"):
        if reason := servers.missing(name):
            print(f"left out: {reason}", file=sys.stderr)
            continue
        made = stack.enter_context(getattr(servers, name)())
        if name == "moosefs":
            store = Local(made.folder / "bench", sync=True)
            made.set_goal(store.folder, 2)
            yield "MooseFS, 2 copies", store, store
        elif name == "s3":
            store = S3(made)
            stack.callback(store.close)
            yield "object store (rclone)", store, store
        else:
            yield "JuiceFS, other mount", Local(made[0] / "bench", sync=True), Local(made[1] / "bench")


def compared(stores: Iterable[tuple[str, Store, Store]]) -> None:
    """Prints the second table."""
    heads = "store | object | readers | written | read cold | p50 | p99 | read again | p50 | p99"
    print(f"\n| {heads} |\n|{'---|' * 10}")
    for name, one, other in stores:
        for size, count in SIZES.items():
            for readers in (1, 8):
                keys = [f"{size}-{readers}/{number:04d}" for number in range(count)]
                cells = [measure.writes(one, keys, size, writers=readers)]
                for key in keys if isinstance(other, Local) else ():
                    other.forget(key)
                cells += [measure.reads(other, keys, readers=readers) for _ in range(2)]
                print(f"| {name} | {format_bytes(size)} | {readers} | {' | '.join(shown(cells))} |", flush=True)


def shown(cells: list[measure.Measured]) -> Iterator[str]:
    """Throughput of each, and both percentiles of the reads."""
    for number, each in enumerate(cells):
        yield f"{format_bytes(each.bytes_per_s)}/s"
        if number:
            yield from (format_seconds(each.latency_s(percent)) for percent in (50, 99))


def many_readers() -> None:
    """Prints the third table."""
    memory, size = Memory(), 64 * 1024
    memory.put("object", bytes(size))
    print("\n| readers | 64 KiB objects over 5 ms, 200 MB/s: formula | measured | p99 |\n|---|---|---|---|")
    for readers in progress((1, 2, 4, 8, 16, 32), "readers"):
        told = formulas.throughput(size, QUICK.latency_s, QUICK.bytes_per_s, readers)
        found = measure.reads(Far(memory, QUICK), ["object"] * 50 * readers, readers=readers)
        cells = f"{format_bytes(told)}/s | {format_bytes(found.bytes_per_s)}/s | {format_seconds(found.latency_s(99))}"
        print(f"| {readers} | {cells} |")


def main() -> None:
    """Prints the three tables, and fails where a loader that fetches ahead misses the limit."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stores = list(pairs(stack, folder))
        objects = next((store for _, store, _ in stores if isinstance(store, S3)), None)
        kept = fed(Local(f"{folder}/train"), objects)
        compared(stores)
        many_readers()
    if not kept:
        sys.exit(f"a loader that fetches ahead gave less than {LIMIT} of what memory gives")


if __name__ == "__main__":
    main()
