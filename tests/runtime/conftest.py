"""For tests of launches that fail: that the report comes in time, and that nothing stays behind."""

import os
import re
import sys
import tempfile
import time

import psutil
import pytest
import torch

from parallel_lab import launch
from parallel_lab.runtime.kernel import forkserver

LONG_S = 20.0  # a launch is given so long where its end must not wait for the timeout
SOON_S = 4.0  # and is over by then
PROMPT_S = 2.0  # where it must, the report comes so long after the timeout at the most


def leftovers():
    """What a launch could leave: processes below the fork server, files, descriptors."""
    server = psutil.Process(forkserver.get().process.pid)
    folders = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(f"parallel-lab-{os.getpid()}-")}
    return server.children(recursive=True), folders, os.listdir("/proc/self/fd") if sys.platform == "linux" else []


@pytest.fixture(scope="session")
def warm():
    launch(int, ranks=1)  # what the first launch opens stays


@pytest.fixture
def nothing_stays(warm):
    _, folders, descriptors = leftovers()
    yield
    processes, new_folders, new_descriptors = leftovers()
    assert not processes
    assert new_folders <= folders
    assert len(new_descriptors) <= len(descriptors)
    assert launch(torch.distributed.get_rank, ranks=2).results == [0, 1]


@pytest.fixture
def fails():
    """Launches `fn`, which must raise `error` with a report that matches every pattern; returns the error."""
    return _fails


def _fails(fn, error, *patterns, ranks=3, timeout=None, **options):
    """The least of three times counts: this process may stand still on a busy machine."""
    timeout, limit_s = (timeout, timeout + PROMPT_S) if timeout else (LONG_S, SOON_S)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(error) as raised:
            launch(fn, ranks=ranks, timeout=timeout, **options)
        took_s = time.monotonic() - began
        for pattern in patterns:
            assert re.search(pattern, raised.value.report), raised.value.report
        if took_s < limit_s:
            return raised.value
    pytest.fail(f"the report took {took_s:.1f} s, and more than {limit_s:.1f} s three times")
