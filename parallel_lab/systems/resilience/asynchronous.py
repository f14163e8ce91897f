"""Saving while training goes on: the step waits for a copy in memory, and a thread brings the copy to the disk.

CheckFreq (Mohan et al. 2021) splits a checkpoint into a snapshot, for which training waits, and its persisting, for
which it does not. `torch.distributed.checkpoint.async_save` does the same.

    stall of a save         the wait for the save before, if it still runs; then S bytes copied into host memory
    held per rank           S bytes of host memory beside the state, kept for the next save; pinned where the state is
                            on a GPU, so that its copy engine writes into them
    on the disk             what `folder.py` keeps: a hidden folder, fsync, checksums, one rename that makes it visible

Each rank writes its own file, so no tensor is sent. The ranks speak to each other once a save, at its start, where rank
0 makes the folder; then a thread of each rank writes, and leaves a small file that says so. Rank 0's thread waits for
all of these, writes the index and renames. A process that dies in the middle leaves what was whole before it.

One save is in flight. An error of a writer is raised at the next call of `save` or `wait`, on all ranks: an error that
nobody sees would let a run go on for days without a checkpoint.
"""

import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.runtime.group import member
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.checksum import Stamp
from parallel_lab.systems.resilience.together import agreed, gathered
from parallel_lab.trace import span, tag

WRITTEN, POLL_S = "written-{:05}", 0.002


class Buffers:
    """Host memory for a copy of the state, by the place of each tensor in it; made once and used again."""

    def __init__(self) -> None:
        self.held: dict[tuple[Any, ...], Tensor] = {}

    def copy(self, value: Any, at: tuple[Any, ...] = ()) -> Any:
        """`value` with each of its tensors copied into host memory; a tensor of a GPU may still be on its way."""
        if isinstance(value, Tensor):
            return self._buffer(value, at).copy_(value.detach(), non_blocking=value.is_cuda)
        if isinstance(value, Mapping):
            return {key: self.copy(each, (*at, key)) for key, each in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.copy(each, (*at, place)) for place, each in enumerate(value))
        return value

    def _buffer(self, value: Tensor, at: tuple[Any, ...]) -> Tensor:
        found = self.held.get(at)
        if found is None or (found.shape, found.dtype) != (value.shape, value.dtype):
            found = self.held[at] = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        return found

    @property
    def bytes(self) -> int:
        """What is held."""
        return sum(each.nbytes for each in self.held.values())


class AsyncSaver:
    """Saves each rank's shard into a folder of checkpoints, behind the steps that follow.

    Args:
        directory: the folder of this run's checkpoints, which all ranks see.
        keep: how many older checkpoints remain beside the newest.
        patience_s: how long rank 0's thread waits for the files of the others.
        group: the ranks that save.

    Attributes:
        stall_s: How long the last `save` kept this rank from training.
        buffers: The host memory that is used for every save.
    """

    @keyword_only()
    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep: int = 2,
        patience_s: float = 600.0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.directory, self.keep, self.patience_s, self.group = directory, keep, patience_s, member(group)
        self.buffers, self.stall_s = Buffers(), 0.0
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, shard: Mapping[str, Any], *, step: int, **index: Any) -> None:
        """Copies this rank's shard and returns; it is written meanwhile. All ranks of the group call it.

        Args:
            shard: made of numbers, words, tensors, lists and dicts of these.
            step: how many steps were taken.
            index: what is one for all ranks, as the position in the data; rank 0's is saved.

        Raises:
            OSError: the save before this one failed on some rank, or the folder cannot be made.
            ValueError: another run is saving into the folder.
        """
        self.wait()
        began_s, rank, stack = time.perf_counter(), self.group.rank(), ExitStack()

        def begin() -> str:
            return "" if rank else str(stack.enter_context(folder.writing(self.directory)))

        with span("checkpoint", phase="checkpoint"), tag(phase="checkpoint"):
            why = f"cannot save step {step} into {self.directory}"
            partial = Path(gathered(agreed(begin, why, stack.close, self.group), self.group)[0])
            copy = self.buffers.copy(shard)
            if torch.cuda.is_available():
                torch.cuda.current_stream().synchronize()  # the copies are there, and the state may change
        arguments = partial, copy, step, index, stack
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()
        self.stall_s = time.perf_counter() - began_s

    def wait(self) -> None:
        """Returns when the last save is on the disk. All ranks of the group call it, at the latest before they end.

        Raises:
            OSError: it failed on some rank; each rank says what it knows. The older checkpoints are as they were.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if any(gathered(error is not None, self.group)):
            text = f"rank {self.group.rank()}: the last checkpoint was not written"
            raise OSError(f"{text}: {error or 'another rank says why'}") from error

    def _write(self, partial: Path, copy: Any, step: int, index: dict[str, Any], stack: ExitStack) -> None:
        """What the thread does. Whatever goes wrong is kept for `wait`, and told to rank 0's thread."""
        rank = self.group.rank()
        with stack:
            try:
                stamp = folder.write(partial / folder.shard(rank), copy)
                _say(partial / WRITTEN.format(rank), f"{stamp.bytes} {stamp.crc32}")
                if rank == 0:
                    self._publish(partial, step, index)
            except Exception as error:
                self._error = error
                with suppress(OSError):  # rank 0 may have given up, and removed the folder
                    _say(partial / WRITTEN.format(rank), f"failed {error}")

    def _publish(self, partial: Path, step: int, index: dict[str, Any]) -> None:
        """Once all files are there: the index, and the rename. Where one failed, the others are awaited first."""
        ranks, until_s = self.group.size(), time.monotonic() + self.patience_s
        heard = [_hear(partial / WRITTEN.format(rank), until_s) for rank in range(ranks)]
        files: dict[str, tuple] = {}
        for rank, word in enumerate(heard):
            if isinstance(word, str):
                raise OSError(f"rank {rank} could not write its file: {word}")
            files[folder.shard(rank)] = tuple(word)
            (partial / WRITTEN.format(rank)).unlink()
        folder.write(partial / folder.INDEX, index | {"files": files, "step": step, "ranks": ranks})
        folder.publish(partial, step, self.keep)


def load(directory: str | os.PathLike, *, rank: int = 0) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A rank's shard of the newest whole checkpoint, and the index; None where there is none."""
    checkpoint = folder.latest_whole(directory)
    if checkpoint is None:
        return None
    index = folder.read_index(checkpoint)
    name = folder.shard(rank)
    return folder.read(checkpoint / name, Stamp(folder.stamps(index)[name].bytes)), index


def _say(file: Path, text: str) -> None:
    """Writes a small file that is there at once with all its words, or not at all."""
    aside = file.with_name(f".{file.name}")
    aside.write_text(text)
    os.rename(aside, file)


def _hear(file: Path, until_s: float) -> Stamp | str:
    """What another rank's thread has left, once it is there: the stamp of its file, or why it could not write it.

    Raises:
        OSError: nothing came in time.
    """
    while not file.exists():
        if time.monotonic() > until_s:
            raise OSError(f"{file.name} did not come: has that rank died?")
        time.sleep(POLL_S)
    first, rest = file.read_text().split(" ", 1)
    return rest if first == "failed" else Stamp(int(first), int(rest))
