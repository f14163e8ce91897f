"""Batches that are fetched ahead: while the rank computes, threads load, and a GPU's copy engine copies.

The wait for a batch is what a profile shows as `data`. Ahead means memory: up to `ahead` batches are held beside the
one in use.

Threads help where loading waits (for a disk, a network) or runs in libraries that release Python's lock, as NumPy, zlib
and torch do. Python code that computes takes turns with the training loop; for that there are worker processes
(`DataLoader(num_workers=...)`).

On a GPU the batch is first copied to *pinned* memory, which the system does not move, so that the copy engine can take
it while kernels run: `.to(device, non_blocking=True)` on a stream of its own. From pageable memory the copy is not
asynchronous.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from typing import Any

import torch
from torch import Tensor

from parallel_lab.trace import span

END = object()


class Prefetcher:
    """Iterates over `load(item)` for each of `items`, in their order, up to `ahead` of them loaded before their turn.

    Each wait is recorded as a span of the kind `data`, and summed in `waited_s`. An error of `load` is raised where its
    batch was due. Who breaks off ends the threads.

    Args:
        items: what there is to load; without `load`, the batches themselves, which one thread then takes.
        load: makes a batch of an item: a tensor, or a tuple, list or dict of tensors; without a `device`, anything.
        ahead: how many batches may be ready or in the making.
        threads: how many load at the same time.
        device: where the tensors go; to a GPU through pinned memory, on a stream of its own.

    Raises:
        ValueError: `ahead` or `threads` is below 1, or there are several threads and no `load`.
    """

    def __init__(
        self,
        items: Iterable[Any],
        load: Callable[[Any], Any] | None = None,
        *,
        ahead: int = 2,
        threads: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        if min(ahead, threads) < 1 or (load is None and threads > 1):
            text = "expected at least 1 of each, and a function `load` where several threads share the work"
            raise ValueError(f"ahead={ahead}, threads={threads}: {text}")
        self.items, self.load, self.ahead, self.threads = items, load, ahead, threads
        self.device = torch.device(device) if device is not None else None
        self.stream = torch.cuda.Stream(self.device) if self.device and self.device.type == "cuda" else None
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Any]:
        """The batches, in the order of the items."""
        items = iter(self.items)
        load = self.load or (lambda _: next(items, END))
        todo = items if self.load else repeat(None)
        pool = ThreadPoolExecutor(self.threads)
        try:
            waiting = deque(pool.submit(self._make, load, item) for item in islice(todo, self.ahead))
            number = 0
            while waiting:
                began_s = time.perf_counter()
                with span("data", part=number, phase="data"):
                    batch, copied = waiting.popleft().result()
                self.waited_s += time.perf_counter() - began_s
                if batch is END:
                    return
                waiting.extend(pool.submit(self._make, load, item) for item in islice(todo, 1))
                yield self._arrived(batch, copied)
                number += 1
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, load: Callable[[Any], Any], item: Any) -> tuple[Any, Any]:
        """Loads in a thread and begins to move the batch; the event is the end of the copy on a GPU."""
        batch = load(item)
        if self.device is None or batch is END:
            return batch, None
        if self.stream is None:
            return _each(batch, lambda tensor: tensor.to(self.device)), None
        with torch.cuda.stream(self.stream):
            moved = _each(batch, lambda tensor: tensor.pin_memory().to(self.device, non_blocking=True))
            return moved, self.stream.record_event()

    def _arrived(self, batch: Any, copied: Any) -> Any:
        """Has the kernels that come next, and not the host, wait for the copy."""
        if copied is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copied)
            _each(batch, lambda tensor: tensor.record_stream(current) or tensor)
        return batch


def _each(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The batch with each of its tensors changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {name: _each(value, change) for name, value in batch.items()}
    return type(batch)(_each(value, change) for value in batch) if isinstance(batch, tuple | list) else batch
