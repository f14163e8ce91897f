"""PyTorch's flight recorder of a rank, written to a file when the kernel asks where the rank stands.

NCCL's process group writes such a file by itself when a collective takes too long. gloo's records the same entries and
never writes them. As with NCCL, `TORCH_FR_DUMP_TEMP_FILE` is what the file's path begins with, and the rank ends it;
without that variable nothing is written.
"""

import contextlib
import os

from parallel_lab import compat

PREFIX = "TORCH_FR_DUMP_TEMP_FILE"


def dump() -> None:
    """Writes the record of this rank, all of it or nothing, where the environment asks for it."""
    if prefix := os.environ.get(PREFIX):
        path = prefix + os.environ["RANK"]
        with contextlib.suppress(OSError):  # a hang is explained all the same
            with open(f"{path}.part", "wb") as file:
                file.write(compat.flight_record())
            os.replace(f"{path}.part", path)
