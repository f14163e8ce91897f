"""The program of a rank that `wire.py` starts on each of two hosts: it all-reduces numbers whose bytes are a word."""

import json
import struct
import sys
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab import compat

WORD = b"GRADIENT" * 4  # in a tensor of float32, every two elements
PATIENCE = timedelta(seconds=120)


def all_reduces(folder: str, rank: int, address: str, number: int, tensor_bytes: int, times: int) -> list[float]:
    """The seconds that each all-reduce took over this address, and the result is checked.

    Rank 0 has the word, rank 1 has zeros, so also the sum has it.
    """
    store = compat.FileStore(f"{folder}/store{number}", 2)
    group: Any = dist.ProcessGroupGloo(store, rank, 2, compat.gloo_options(address, PATIENCE))
    word = torch.tensor(struct.unpack("<2f", WORD[:8])).repeat(tensor_bytes // 8)
    took = []
    for _ in range(times):
        tensor = word.clone() if rank == 0 else torch.zeros_like(word)
        group.barrier().wait()
        began_s = time.monotonic()
        group.allreduce([tensor]).wait()
        took.append(time.monotonic() - began_s)
        if not torch.equal(tensor, word):
            raise ValueError("the sum is wrong")
    group.barrier().wait()
    return took


def main(folder: str, rank: int, tensor_bytes: int, times: int, addresses: list[str]) -> None:
    """Prints the seconds of each all-reduce, a list for each address."""
    torch.set_num_threads(1)
    print(
        json.dumps(
            [all_reduces(folder, rank, each, number, tensor_bytes, times) for number, each in enumerate(addresses)]
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
