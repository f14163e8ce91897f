"""Jobs of four ranks that really hang, each in its own way, with their flight records; and a record of 512 by formula.

`hang("loader")` runs one under `launch`, which ends it, and gives the dumps that the ranks wrote while they hung.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist

from parallel_lab.runtime import LaunchError, launch
from parallel_lab.runtime.rank import flight
from parallel_lab.systems.resilience.flight import Diagnosis, Dump, Entry, diagnose, read

CULPRIT = 2


def _steps(count: int = 3) -> torch.Tensor:
    """Some collectives that go well, as a job has behind it before it hangs."""
    gradient = torch.ones(1000)
    for _ in range(count):
        dist.all_reduce(gradient)
    return gradient


def missing() -> None:
    """One rank leaves its loop a step early, as with one batch less."""
    _steps(2 if dist.get_rank() == CULPRIT else 3)


def collective() -> None:
    """One rank takes another branch, and calls another collective."""
    gradient = _steps()
    if dist.get_rank() == CULPRIT:
        dist.broadcast(gradient, 0)
    else:
        dist.all_reduce(gradient)


def size() -> None:
    """One rank has fewer elements, as of an uneven last batch.

    Where NCCL hangs, gloo ends the rank that gets more than it asked for, by SIGABRT, and with it goes its record. So
    here that rank is the first to call, and writes its record before the others, whom it tells, send it anything.
    """
    gradient, go = _steps(), torch.ones(1)
    if dist.get_rank() == CULPRIT:
        work = dist.all_reduce(gradient[:900], async_op=True)
        flight.dump()
        for other in set(range(dist.get_world_size())) - {CULPRIT}:
            dist.send(go, other)
        assert work
        work.wait()
    else:
        dist.recv(go, CULPRIT)
        dist.all_reduce(gradient)


def order() -> None:
    """Two groups of all ranks, which one rank uses in the other order, and waits in each."""
    one, two = dist.new_group(group_desc="dense"), dist.new_group(group_desc="experts")
    gradient = _steps()
    for group in (two, one) if dist.get_rank() == CULPRIT else (one, two):
        dist.all_reduce(gradient, group=group)


def loader() -> None:
    """One rank waits for its next batch: nobody ever writes into the pipe that it reads."""
    gradient = _steps()
    if dist.get_rank() == CULPRIT:
        os.read(os.pipe()[0], 1)
    dist.all_reduce(gradient)


HANGS: Mapping[str, Callable[[], None]] = {each.__name__: each for each in (missing, collective, size, order, loader)}


@contextmanager
def recording() -> Iterator[str]:
    """Inside, the ranks of a launch write their flight records; gives what the paths of the files begin with."""
    with tempfile.TemporaryDirectory(prefix="flight-") as folder:
        prefix = os.path.join(folder, "rank_")
        with mock.patch.dict(os.environ, {flight.PREFIX: prefix, "TORCH_FR_BUFFER_SIZE": "2000"}):
            yield prefix


def hang(name: str, *, ranks: int = 4, still_s: float = 1.0) -> tuple[Diagnosis, str]:
    """Runs the job `name` of `HANGS` until it is ended; what its dumps say, and what `launch` said of it.

    Args:
        name: which job.
        ranks: how many ranks.
        still_s: how long nobody may do anything; `launch` sees sooner that most of these can never go on.
    """
    with recording() as prefix:
        try:
            launch(HANGS[name], ranks=ranks, device="cpu", still_s=still_s, echo=False)
        except LaunchError as error:
            return diagnose(read(prefix)), str(error)
    raise AssertionError(f"{name} did not hang")


def synthetic(
    ranks: int = 512, *, tensor: int = 8, culprit: int = 137, steps: int = 100, layers: int = 4
) -> dict[int, Dump]:
    """Dumps written by a formula, not by a run: tensor-parallel groups of `tensor` ranks, data-parallel ones across.

    Rank `culprit` stops in step `steps` before its first collective. Its tensor-parallel group waits for it, then the
    data-parallel groups of these ranks, so that in the end nearly all ranks wait for somebody who waits himself.
    """
    groups = {f"tp{k}": tuple(range(k * tensor, (k + 1) * tensor)) for k in range(ranks // tensor)}
    groups |= {f"dp{k}": tuple(range(k, ranks, tensor)) for k in range(tensor)}
    return {rank: _written(rank, groups, tensor, culprit, steps, layers) for rank in range(ranks)}


def _written(
    rank: int, groups: Mapping[str, tuple[int, ...]], tensor: int, culprit: int, steps: int, layers: int
) -> Dump:
    tp, dp, done = f"tp{rank // tensor}", f"dp{rank % tensor}", steps * layers

    def block(number: int, over: bool = True) -> Entry:
        return Entry(tp, number, "all_reduce", ((4, 2048, 8192),), ("BFloat16",), over, "block.py:88")

    def gradients(number: int, over: bool = True) -> Entry:
        return Entry(dp, number, "all_reduce", ((25_000_000,),), ("BFloat16",), over, "ddp.py:140")

    entries = []
    for step in range(steps):
        entries += [*(block(step * layers + k + 1) for k in range(layers)), gradients(step + 1)]
    if rank not in groups[f"tp{culprit // tensor}"]:
        entries += [*(block(done + k + 1) for k in range(layers)), gradients(steps + 1, over=False)]
    elif rank != culprit:
        entries.append(block(done + 1, over=False))
    return Dump(rank, {name: groups[name] for name in (tp, dp)}, {tp: "tp", dp: "dp"}, tuple(entries))
