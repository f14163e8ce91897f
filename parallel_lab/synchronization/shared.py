"""Memory that all ranks of one machine read and write: a file without a name, mapped by each of them.

On Linux the file never has a name: rank 0 opens it, the others map it through rank 0's descriptor in /proc, and when
the last mapping goes, the memory goes. Elsewhere it has a name until all ranks have mapped it.
"""

import os
import sys
import tempfile
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def shared_zeros(count: int, dtype: torch.dtype, group: dist.ProcessGroup | None = None) -> Tensor:
    """`count` zeros on the CPU, in memory that all ranks of the group share; every rank calls it."""
    size_bytes = max(1, count) * dtype.itemsize
    file: Any = None
    path = ""
    try:
        if dist.get_rank(group) == 0:
            file, path = _open(size_bytes)
        box = [path]
        dist.broadcast_object_list(box, group=group, group_src=0, device=torch.device("cpu"))
        tensor = _map(box[0], count, dtype)
        dist.barrier(group)  # every rank has mapped the file: from here on it needs no name and no descriptor
    finally:
        if file is not None:
            file.close()
    return tensor


def _open(size_bytes: int) -> tuple[Any, str]:
    if sys.platform == "linux":
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the caller, once all ranks have mapped it)
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
    else:
        file = tempfile.NamedTemporaryFile(prefix="parallel-lab-shared-")  # noqa: SIM115
        path = file.name
    file.truncate(size_bytes)
    return file, path


def _map(path: str, count: int, dtype: torch.dtype) -> Tensor:
    if not os.path.exists(path):
        raise RuntimeError(
            f"this rank finds no {path}, where rank 0 keeps the shared memory: shared memory needs all ranks on one "
            "machine. Use a parameter server (`Asynchronous()`) across machines."
        )
    return torch.from_file(path, shared=True, size=max(1, count), dtype=dtype)[:count]
