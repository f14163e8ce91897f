"""How samples lie in objects: a file each, many in a tar shard, or all tokens in one array that is mapped.

- A file for each sample: simple, any sample alone, and a request (an open, a lookup of its name) for each.
- Tar shards of 100 MB to 1 GB: one request for thousands of samples, read from front to back. WebDataset's form: the
  files of one sample follow one another and share the name before the first dot. Tar has no index; `positions` reads
  the headers once, and then a range gives one sample.
- Tokens in one array, mapped into memory: a sample is a slice, which the kernel reads when it is touched, page by page.
  Nothing is parsed. It needs a file system; an object store cannot be mapped.

Columns (Arrow, Parquet) stand in `columns.py`.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike

import numpy as np

from parallel_lab.systems.storage.store import Store

Sample = tuple[str, bytes]  # its name, as of a file, and its bytes
BLOCK = 512  # tar pads each header and each file to that


def write_files(store: Store, prefix: str, samples: Iterable[Sample]) -> list[str]:
    """Writes an object for each sample, and returns the keys."""
    keys = []
    for name, data in samples:
        keys.append(f"{prefix}/{name}")
        store.put(keys[-1], data)
    return keys


def write_shards(store: Store, prefix: str, samples: Sequence[Sample], shard_samples: int) -> list[str]:
    """Writes tar shards of `shard_samples` samples each, and returns the keys."""
    keys = []
    for number, start in enumerate(range(0, len(samples), shard_samples)):
        keys.append(f"{prefix}/{number:06d}.tar")
        store.put(keys[-1], to_tar(samples[start : start + shard_samples]))
    return keys


def to_tar(samples: Iterable[Sample]) -> bytes:
    """The samples as a tar file: the same bytes for the same samples, whoever writes it and when."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as shard:
        for name, data in samples:
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(data), 0o444
            shard.addfile(header, io.BytesIO(data))
    return out.getvalue()


def from_tar(data: bytes) -> Iterator[Sample]:
    """The samples of a shard, in their order."""
    for name, start, length in positions(data):
        yield name, data[start : start + length]


def positions(data: bytes) -> list[tuple[str, int, int]]:
    """Name, first byte and length of each file of a tar shard."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as shard:
        return [(one.name, one.offset_data, one.size) for one in shard if one.isfile()]


def tar_bytes(sizes: Iterable[int], record_bytes: int = 10_240) -> int:
    """The size of a tar shard: a header and padding for each file, two empty blocks, the whole filled to a record."""
    used = sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes) + 2 * BLOCK
    return -(-used // record_bytes) * record_bytes


def token_dtype(vocabulary: int) -> np.dtype:
    """The narrowest unsigned type that holds every token: two bytes up to 65,536 of them, else four."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


def write_tokens(path: str | PathLike[str], documents: Sequence[Sequence[int]], vocabulary: int) -> np.ndarray:
    """Writes the tokens of all documents, one after another, as a .npy file.

    Args:
        path: where.
        documents: the tokens of each.
        vocabulary: how many tokens there are.

    Returns:
        Where each document begins, and where the last one ends: document i is tokens[ends[i]:ends[i + 1]].

    Raises:
        ValueError: a token is not in the vocabulary.
    """
    starts = np.cumsum([0, *map(len, documents)])
    tokens = np.concatenate([np.asarray(each, dtype=np.int64) for each in documents]) if documents else np.empty(0, int)
    if len(tokens) and not (tokens.min() >= 0 and tokens.max() < vocabulary):
        raise ValueError(f"tokens from {tokens.min()} to {tokens.max()}: the vocabulary has {vocabulary}")
    with open(path, "wb") as file:
        np.save(file, tokens.astype(token_dtype(vocabulary)))
    return starts


def map_tokens(path: str | PathLike[str]) -> np.memmap:
    """The tokens of a .npy file; a slice is read when it is used, and pages are shared by all ranks of a node."""
    return np.load(path, mmap_mode="r")


def window(tokens: np.ndarray, number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The input and the target of sample `number`: `length` tokens, and the same moved on by one.

    Raises:
        IndexError: the tokens end before that.
    """
    start = number * length
    if number < 0 or start + length + 1 > len(tokens):
        raise IndexError(f"window {number} of {length} tokens: there are {len(tokens)} tokens")
    taken = tokens[start : start + length + 1].astype(np.int64)
    return taken[:-1], taken[1:]
