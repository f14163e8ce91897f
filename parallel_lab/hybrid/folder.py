"""The folder of a run's checkpoints: what is complete is seen, and what is not complete is not.

    000007-step-1200/       a checkpoint: number 7 of this folder
        rank-00000.pt …     the shard of each rank
        index.pt            what there is, and where; it is written last
    .000008-partial/        what is being written or removed, or what a saver that died has left
    .saving                 locked while a checkpoint is being written
    .training               locked while the training command runs

A checkpoint is written under a hidden name, each file is brought to the disk (fsync), and renaming the folder makes it
visible, all at once. So whoever dies at whatever moment leaves the older checkpoints as they were. The number grows
with each checkpoint, also where a run was taken back to an older step. The lock ends with the process that has it.
"""

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

INDEX, LOCK, TRAINING = "index.pt", ".saving", ".training"
AWAY = "move this checkpoint out of its folder: then the one before it counts"
_COMPLETE, _PARTIAL = re.compile(r"(\d{6,})-step-\d+"), re.compile(r"\.\d+-partial")


def shard(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank-{rank:05}.pt"


def complete(directory: str | os.PathLike) -> list[Path]:
    """The complete checkpoints in `directory`, the oldest first; none where there is no such folder."""
    where = Path(directory)
    found = [each for each in where.iterdir() if _COMPLETE.fullmatch(each.name)] if where.is_dir() else []
    return sorted((each for each in found if (each / INDEX).is_file()), key=_number)


def latest(directory: str | os.PathLike) -> Path | None:
    """The newest complete checkpoint in `directory`, the one that was saved last; None where there is none."""
    return next(reversed(complete(directory)), None)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[0])


@contextmanager
def training(directory: str | os.PathLike, patience_s: float) -> Iterator[None]:
    """Inside, no other training command has `directory`: two would go on from, and remove, each other's checkpoints.

    Raises:
        OSError: another one has it, and still has it after `patience_s`, in which a run that was killed has ended.
    """
    try:
        with FileLock(Path(directory) / TRAINING, timeout=patience_s):
            yield
    except Timeout:
        text = f"another run trains into {directory} at this moment: wait for it, or give each run a folder of its own"
        more = "ranks whose torchrun was killed with -9 go on without it, and `pgrep -af hybrid.train` shows them"
        raise OSError(f"{text} ({more}). Nothing was changed") from None


@contextmanager
def writing(directory: str | os.PathLike) -> Iterator[Path]:
    """A new hidden folder in `directory`, for the files of a checkpoint. Nobody else writes one meanwhile.

    What is left of it in the end is removed, and so is what savers that died have left.

    Raises:
        ValueError: another run is saving here.
        OSError: the folder cannot be made, or not written.
    """
    where = Path(directory)
    where.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(where / LOCK, timeout=0):
            for left in [each for each in where.iterdir() if _PARTIAL.fullmatch(each.name)]:
                shutil.rmtree(left)
            named = [each for each in where.iterdir() if _COMPLETE.fullmatch(each.name)]  # one without index as well
            number = 1 + max(map(_number, named), default=0)
            partial = where / f".{number:06}-partial"
            partial.mkdir()
            try:
                yield partial
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except Timeout:
        text = f"another run is saving into {where} at this moment: give each run a folder of its own"
        raise ValueError(f"{text}. Nothing was written") from None


def check_readable(name: str, content: Any) -> None:
    """Refuses what `write` would write and `read` would not read.

    Raises:
        ValueError: there is something of another kind in it than numbers, words and tensors.
    """
    memory = io.BytesIO()
    try:
        torch.save(content, memory)
        torch.load(io.BytesIO(memory.getvalue()), weights_only=True)
    except Exception as error:
        text = f"{name} is made of numbers, words, tensors, and lists and dicts of these, got {content!r}"
        raise ValueError(f"{text}: a file with other things in it could not be loaded safely") from error


def write(file: Path, content: Any) -> int:
    """Writes what `torch.load(weights_only=True)` reads, and returns its bytes once they are on the disk.

    Raises:
        OSError: the file cannot be written.
    """
    if not file.parent.is_dir():
        text = f"{file.parent} is not there: ranks on several machines need a folder that all of them see"
        raise FileNotFoundError(text)
    with open(file, "xb") as to:
        try:
            torch.save(content, to)
        except RuntimeError as error:  # torch's own, about its archive, hides that the disk is full
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        to.flush()
        os.fsync(to.fileno())
    return file.stat().st_size


def publish(partial: Path, step: int, keep: int) -> Path:
    """Makes what `writing` gave a checkpoint that is seen, and removes all but it and the `keep` before it."""
    checkpoint = partial.with_name(f"{partial.name[1:].split('-')[0]}-step-{step}")
    _to_disk(partial)  # the names in it
    os.rename(partial, checkpoint)
    _to_disk(checkpoint.parent)
    for old in complete(checkpoint.parent)[: -1 - keep]:
        hidden = old.with_name(f".{_number(old):06}-partial")  # first, so that half a checkpoint is never seen
        os.rename(old, hidden)
        shutil.rmtree(hidden)
    return checkpoint


def _to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(file: Path, size: int | None = None) -> Any:
    """What `write` has written, without its tensors' elements: these are read when they are looked at.

    A file that lost its end or its directory is noticed, an element that was changed in its place is not.

    Args:
        file: its path.
        size: how many bytes it had, where that is known.

    Raises:
        ValueError: it is missing, not as long as it was, or no such file; the message says which.
    """
    if not file.is_file():
        text = f"{file.name} is missing from the checkpoint {file.parent}, as this machine sees it"
        raise ValueError(f"{text}: bring it back, or {AWAY}")
    if size is not None and file.stat().st_size != size:
        text = f"{file} has {file.stat().st_size:,} bytes, and had {size:,} when it was saved"
        raise ValueError(f"{text}: it was cut off or changed. Bring it back, or {AWAY}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{file} cannot be read ({first}): it is damaged. Now {AWAY}") from error


def find(directory: str | os.PathLike) -> Path:
    """`directory`, where it is itself a checkpoint, or the newest one in it.

    Raises:
        FileNotFoundError: neither.
    """
    where = Path(directory)
    found = where if (where / INDEX).is_file() else latest(where)
    if found is None:
        raise FileNotFoundError(f"there is no complete checkpoint in {where}. Was it saved there, on this machine?")
    return found
