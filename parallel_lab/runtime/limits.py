"""A limit on the memory of a rank."""

import resource
import sys


def limit_memory(limit_bytes: int | None) -> None:
    """Lets this process allocate at most `limit_bytes` more than it holds now; None for no limit.

    Linux counts private memory (RLIMIT_DATA), so that what the fork server shares with its ranks is free. macOS does
    not enforce it.
    """
    if limit_bytes is None or not sys.platform.startswith("linux"):
        return
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + limit_bytes, hard))
