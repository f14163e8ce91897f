"""What a power cut leaves of a save, on a real ext4 file system: a kill cannot show that, since the system lives on.

A small file system lies in a file and is mounted through a loop device. A save runs in it. Then the file is copied as
it is: that is what the disk has, without what the operating system still holds in memory. The copy is mounted, which
replays its journal, as a machine does when it is switched on again, and the checkpoint is looked for.

It needs root, `mkfs.ext4` and a free loop device. The journal is committed by syncs alone here; on a machine at work
some seconds do it too, so what is lost here is lost there only if the power fails within them. Other file systems, and
disks that confirm a write before they have it, lose other things.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from parallel_lab.systems.disk import sync

STEPS = "write", "sync file", "rename", "sync folder"
SIZE_BYTES, CONTENT = 16 * 2**20, b"new" * 10_000
COMMIT_S = 300  # how often ext4 commits its journal by itself


def unavailable() -> str:
    """Why this cannot run here; "" where it can."""
    if os.name != "posix" or os.geteuid():
        return "mounting a file system needs root"
    if missing := [tool for tool in ("mkfs.ext4", "mount", "umount") if not shutil.which(tool)]:
        return f"{', '.join(missing)} is not there: apt-get install e2fsprogs mount"
    with tempfile.TemporaryDirectory(prefix="power-") as where:
        try:
            with _mounted(_disk(Path(where)), Path(where) / "try"):
                return ""
        except OSError as error:
            return f"no loop device can be mounted: {error}"


def found_after(steps: Sequence[str]) -> str:
    """What stands under the checkpoint's name after these steps, some of `STEPS`, and a power cut.

    Returns:
        `new`, all of it; `torn`, the name without all bytes; or `none`, and a resume takes the checkpoint before.

    Raises:
        ValueError: there is another step.
        OSError: see `unavailable`.
    """
    if unknown := set(steps) - set(STEPS):
        raise ValueError(f"{sorted(unknown)}: expected some of {STEPS}")
    with tempfile.TemporaryDirectory(prefix="power-") as folder:
        where, after = Path(folder), Path(folder) / "after.img"
        image = _disk(where)
        with _mounted(image, where / "before") as disk:
            _save(disk, steps)
            shutil.copyfile(image, after)  # the power fails
        with _mounted(after, where / "after") as disk:
            checkpoint = disk / "checkpoint"
            if not checkpoint.exists():
                return "none"
            return "new" if checkpoint.read_bytes() == CONTENT else "torn"


def _save(disk: Path, steps: Sequence[str]) -> None:
    aside, name = disk / ".checkpoint", disk / "checkpoint"
    for step in steps:
        if step == "write":
            aside.write_bytes(CONTENT)
        elif step == "rename":
            os.rename(aside, name)
        else:
            sync(disk if step == "sync folder" else aside if aside.exists() else name)


def _disk(where: Path) -> Path:
    """A file with an empty file system in it."""
    image = where / "disk.img"
    with open(image, "wb") as file:
        file.truncate(SIZE_BYTES)
    _run("mkfs.ext4", "-q", "-F", image)
    return image


@contextmanager
def _mounted(image: Path, at: Path) -> Iterator[Path]:
    """The folder under which the file system in `image` is seen; it is unmounted in the end."""
    at.mkdir()
    _run("mount", "-o", f"loop,commit={COMMIT_S}", image, at)
    try:
        yield at
    finally:
        _run("umount", at)


def _run(*words: str | Path) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{words[0]}: {done.stderr.strip()}")
