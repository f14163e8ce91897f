"""What tells that a file is still what was written: its length, and CRC32 over its bytes.

A bit that changes on a disk, in a cable or in memory changes no length, and a file of tensors has no bit pattern that
would be wrong, so nothing notices it but a checksum that was taken when the bytes were handed over.

CRC32 finds every change of one bit, and every change that lies within 32 bits in a row. Other random damage escapes
with a chance of about 2^-32. zlib's CRC32 was about three times as fast as SHA-256 where `benchmarks/checkpoint.py` was
run, and a save or load pays for each byte. It is no signature: who may write into the folder can change file and
checksum alike, and against him SHA-256 in the same folder would not help either.

The index has the checksums of all other files. Its own are those that torch's zip format keeps for each record.
"""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

BLOCK_BYTES = 2**20


class Stamp(NamedTuple):
    """What is known of a file since it was written.

    Attributes:
        bytes: Its length.
        crc32: Its checksum; None where it was written without one.
    """

    bytes: int
    crc32: int | None = None


class Stamped:
    """Hands on to `file` what is written, and keeps the stamp of it: of what was meant, before it reaches the disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.stamp = file, Stamp(0, 0)

    def write(self, data: Any) -> int:
        """Writes all of `data`."""
        self.stamp = Stamp(self.stamp.bytes + memoryview(data).nbytes, zlib.crc32(data, self.stamp.crc32 or 0))
        return self.file.write(data)

    def flush(self) -> None:
        """Hands what Python still has to the operating system."""
        self.file.flush()


def stamp_of(file: str | os.PathLike) -> Stamp:
    """The stamp of a file as it is now; it is read once, a block at a time."""
    checksum, size = 0, 0
    with open(file, "rb") as source:
        while block := source.read(BLOCK_BYTES):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return Stamp(size, checksum)


def damage(file: Path, expected: Stamp) -> str:
    """What is wrong with `file`, in words that name it; "" for nothing."""
    if not file.is_file():
        return f"{file.name} is missing from the checkpoint {file.parent}, as this machine sees it"
    size = file.stat().st_size
    if size != expected.bytes:
        return f"{file} has {size:,} bytes, and had {expected.bytes:,} when it was saved: it was cut off or changed"
    if expected.crc32 is not None and (found := stamp_of(file).crc32) != expected.crc32:
        text = f"{file} has the checksum {found:08x}, and had {expected.crc32:08x} when it was saved"
        return f"{text}: it is damaged, though as long as it was"
    return ""


def archive_damage(file: Path) -> str:
    """What is wrong with a file of `torch.save` by the checksums that its records carry; "" for nothing."""
    if not file.is_file():
        return f"{file.name} is missing from the checkpoint {file.parent}, as this machine sees it"
    try:
        with zipfile.ZipFile(file) as archive:
            record = archive.testzip()
    except Exception as error:  # whatever a damaged directory of records brings about
        return f"{file} cannot be read ({type(error).__name__}: {error}): it is damaged"
    return f"{file} cannot be read: its record {record} is damaged" if record else ""
