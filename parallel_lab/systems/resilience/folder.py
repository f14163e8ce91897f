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

The index has each file's length and checksum under `files`. `verify` holds the files against them, and `latest_whole`
is the newest checkpoint that passes; a damaged one is passed over with a warning, and stays where it is. What was saved
without checksums is held against the lengths alone.

A process that is killed shows whether the order of these calls is right: what it has handed to the operating system
stays. Whether the disk has it when the power fails is the business of fsync, on the files and on the folder, and of the
disk, and no kill tests that.
"""

import io
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from parallel_lab.systems.disk import sync
from parallel_lab.systems.resilience.checksum import Stamp, Stamped, archive_damage, damage

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
        with FileLock(where / LOCK, timeout=0, thread_local=False):  # another thread may end it
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


def write(file: Path, content: Any) -> Stamp:
    """Writes what `torch.load(weights_only=True)` reads, and returns its stamp once it is on the disk.

    Raises:
        OSError: the file cannot be written.
    """
    if not file.parent.is_dir():
        text = f"{file.parent} is not there: ranks on several machines need a folder that all of them see"
        raise FileNotFoundError(text)
    with open(file, "xb") as to:
        stamped = Stamped(to)
        try:
            torch.save(content, stamped)  # pyright: ignore[reportArgumentType] (it asks for no more than `write`)
        except RuntimeError as error:  # torch's own, about its archive, hides that the disk is full
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        to.flush()
        os.fsync(to.fileno())
    return stamped.stamp


def publish(partial: Path, step: int, keep: int) -> Path:
    """Makes what `writing` gave a checkpoint that is seen, and removes all but it and the `keep` before it."""
    checkpoint = partial.with_name(f"{partial.name[1:].split('-')[0]}-step-{step}")
    sync(partial)  # the names in it
    os.rename(partial, checkpoint)
    sync(checkpoint.parent)
    for old in complete(checkpoint.parent)[: -1 - keep]:
        hidden = old.with_name(f".{_number(old):06}-partial")  # first, so that half a checkpoint is never seen
        os.rename(old, hidden)
        shutil.rmtree(hidden)
    return checkpoint


def read(file: Path, stamp: Stamp | None = None) -> Any:
    """What `write` has written, without its tensors' elements: these are read when they are looked at.

    With a stamp that has a checksum the file is read once in full before, a block at a time; memory does not grow.
    Without a checksum a file that lost its end or its directory is noticed, an element that was changed is not.

    Args:
        file: its path.
        stamp: what `write` has returned, where that is known.

    Raises:
        ValueError: it is missing, not what was written, or no such file; the message says which.
    """
    found = damage(file, stamp) if stamp else "" if file.is_file() else damage(file, Stamp(0))
    if found:
        raise ValueError(f"{found}. Bring it back, or {AWAY}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{file} cannot be read ({first}): it is damaged. Now {AWAY}") from error


def stamps(index: Mapping[str, Any]) -> dict[str, Stamp]:
    """The stamps of a checkpoint's files by name; older ones have the lengths of the ranks' files alone."""
    if "files" in index:
        return {name: Stamp(*stamp) for name, stamp in index["files"].items()}
    return {shard(rank): Stamp(size) for rank, size in enumerate(index.get("bytes", ()))}


def read_index(checkpoint: Path) -> dict[str, Any]:
    """The index of a checkpoint, held against its own checksums.

    Raises:
        ValueError: it is missing or damaged.
    """
    if found := archive_damage(checkpoint / INDEX):
        raise ValueError(f"{found}. Bring it back, or {AWAY}")
    return read(checkpoint / INDEX)


def problem(checkpoint: Path, *, rank: int = 0, ranks: int = 1) -> str:
    """What is wrong with a checkpoint, in words that name the file; "" where index and files are what was written.

    Each file is read once in full, from the disk or from what the operating system still has of it.

    Args:
        checkpoint: its folder.
        rank: who looks; all look at the index, and each at its share of the other files.
        ranks: how many share the files.
    """
    if found := archive_damage(checkpoint / INDEX):
        return found
    files = list(stamps(read(checkpoint / INDEX)).items())[rank::ranks]
    return next(filter(None, (damage(checkpoint / name, stamp) for name, stamp in files)), "")


def verify(checkpoint: Path, *, rank: int = 0, ranks: int = 1) -> None:
    """Refuses a checkpoint that has a `problem`.

    Raises:
        ValueError: the index or a file is missing or damaged; the message names it.
    """
    if found := problem(checkpoint, rank=rank, ranks=ranks):
        raise ValueError(f"{found}. Bring it back, or {AWAY}")


def candidates(directory: str | os.PathLike) -> list[Path]:
    """What may be loaded from `directory`, the best first: itself, where it is a checkpoint, or its newest ones.

    Raises:
        FileNotFoundError: there is none.
    """
    where = Path(directory)
    found = [where] if (where / INDEX).is_file() else complete(where)[::-1]
    if not found:
        raise FileNotFoundError(f"there is no complete checkpoint in {where}. Was it saved there, on this machine?")
    return found


def find(directory: str | os.PathLike) -> Path:
    """`directory`, where it is itself a checkpoint, or the newest one in it; whether it is whole is not looked at.

    Raises:
        FileNotFoundError: neither.
    """
    return candidates(directory)[0]


def latest_whole(directory: str | os.PathLike) -> Path | None:
    """The newest checkpoint in `directory` whose files are what was written; None where there is none.

    A damaged one is passed over with a warning that names the file. Nothing is removed.
    """
    for checkpoint in reversed(complete(directory)):
        if not (found := problem(checkpoint)):
            return checkpoint
        pass_over(checkpoint, found)
    return None


def pass_over(checkpoint: Path, why: str) -> None:
    """Warns that a checkpoint is not taken."""
    warnings.warn(f"passing over {checkpoint.name}: {why}", RuntimeWarning, stacklevel=3)
