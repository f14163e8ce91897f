"""What makes names last: a file's bytes are synced through the file, its name through the folder that it stands in."""

import os


def sync(path: str | os.PathLike) -> None:
    """Brings a file, or the names in a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
