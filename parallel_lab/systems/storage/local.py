"""A folder as a store: on this machine's disk, or on a mount of MooseFS, JuiceFS, Lustre or NFS.

An object is a file. It is written under another name, synced and renamed: a rename within one file system is atomic, so
that no reader meets half of it. Such a half-written file is left where the writer is killed; its name begins with a
dot, and no list shows it.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parallel_lab.systems.disk import sync
from parallel_lab.systems.storage.store import Missing, Store, check_range, checked, in_order

ASIDE = ".aside-"  # what the names of unfinished files begin with


class Local(Store):
    """The files below a folder.

    Args:
        folder: made if it is not there.
        sync: whether a write waits until the file and the name are on the medium, and not only in the page cache. The
            entries of new folders above it are not synced.
    """

    def __init__(self, folder: str | os.PathLike[str], *, sync: bool = False) -> None:
        self.folder, self.sync = Path(folder), sync
        self.folder.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, data: bytes) -> None:
        """Written aside and renamed."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        number, aside = tempfile.mkstemp(prefix=ASIDE, dir=path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                if self.sync:
                    os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            raise
        if self.sync:
            sync(path.parent)

    def get(self, key: str) -> bytes:
        """One open, one read."""
        with _missing(key):
            return self._path(key).read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Seeks to the start."""
        with _missing(key), open(self._path(key), "rb") as file:
            check_range(key, start, length, os.fstat(file.fileno()).st_size)
            file.seek(start)
            return file.read(length)

    def list(self, prefix: str = "") -> list[str]:
        """Walks the folder that the prefix names, and all below it."""
        top = self.folder / prefix.rpartition("/")[0]
        found = (
            (Path(folder) / name).relative_to(self.folder).as_posix()
            for folder, _, names in os.walk(top)
            for name in names
            if not name.startswith(ASIDE)
        )
        return in_order(key for key in found if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Unlinks the file; its folder stays."""
        with contextlib.suppress(FileNotFoundError):
            self._path(key).unlink()

    def forget(self, key: str) -> None:
        """Has the kernel drop the file from its page cache (Linux), so that the next read is a cold one."""
        with _missing(key), open(self._path(key), "rb") as file:
            os.fsync(file.fileno())  # what is not written yet cannot be dropped
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _path(self, key: str) -> Path:
        return self.folder / checked(key)


@contextlib.contextmanager
def _missing(key: str) -> Iterator[None]:
    """Has the file system's ways to say no told in the store's words; a folder is no object."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise Missing(key) from None
