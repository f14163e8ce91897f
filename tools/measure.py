"""A plugin of pytest that counts processor seconds by room: `python -m pytest -p tools.measure --spent=FILE`.

What counts is the whole tree below pytest: itself, ranks, fork servers, kernels, programs that a test starts. A
process that has ended counts through the parent that waited for it, so ranks count through their fork server. macOS
does not tell what the children of a live process used; there the ranks are missing, and budgets are loose.

A second of a slow or shared processor does less. So between rooms a fixed piece of work is timed too, and the budgets
are stretched by it.
"""

import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
import torch

from parallel_lab import launch
from tools.budgets import BETWEEN, room_of
from tools.in_ranks import sitecustomize


def tree_s() -> float:
    """Processor seconds of this process and of everything below it, alive or waited for."""
    own = psutil.Process()
    times = [own.cpu_times()]
    for process in own.children(recursive=True):
        try:
            times.append(process.cpu_times())
        except psutil.Error:  # it has ended between the two looks
            continue
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def yardstick_s() -> float:
    """Processor seconds of a fixed piece of work, Python's own and small matrix products, as tests are made of."""
    began_s = time.process_time()
    table: dict[int, int] = {}
    for number in range(20_000):
        table[number % 97] = table.get(number % 97, 0) + number
    square = torch.ones(64, 64)
    for _ in range(100):
        square = (square @ square).tanh()
    return time.process_time() - began_s


class Meter:
    """Seconds by room, in one process of pytest; in the one that the user started, the sum over all its workers.

    Attributes:
        spent: seconds by room.
        yardsticks: seconds of the same piece of work, at each change of room.
    """

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.yardsticks: list[float] = []
        self.counted_s = 0.0

    def count(self, room: str) -> None:
        """Puts what was used since the last call on the account of `room`."""
        now_s = tree_s()
        # A kernel that is killed takes the seconds of its ranks with it, so the sum may fall.
        self.spent[room] += max(0.0, now_s - self.counted_s)
        self.yardsticks.append(yardstick_s())
        self.counted_s = now_s + self.yardsticks[-1]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        """Counts where a room ends."""
        result = yield
        if nextitem is None or room_of(nextitem.nodeid) != room_of(item.nodeid):
            self.count(room_of(item.nodeid))
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item):
        """Before the first test, starts the fork server where there will be ranks: no room should pay for it."""
        if BETWEEN not in self.spent:
            if item.config.getoption("--ranks"):
                launch(int, ranks=1)
            self.count(BETWEEN)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item, nextitem):
        """Counts before the last cell of a notebook takes the kernel down."""
        if nextitem is None or room_of(nextitem.nodeid) != room_of(item.nodeid):
            self.count(room_of(item.nodeid))
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        """A worker hands its seconds to the process that started it; that one kills it if it is slow to end."""
        if sitecustomize.FOLDER in os.environ:
            sitecustomize.write()
        if output := getattr(session.config, "workeroutput", None):
            self.count(BETWEEN)
            output["measured"] = self.measured()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Takes the seconds of a worker that has ended; one that has crashed hands over none."""
        measured = getattr(node, "workeroutput", {}).get("measured", {"spent": {}, "yardsticks": []})
        for room, seconds in measured["spent"].items():
            self.spent[room] += seconds
        self.yardsticks += measured["yardsticks"]

    def measured(self) -> dict[str, object]:
        """What is handed over, from a worker and to the runner."""
        return {"spent": dict(self.spent), "yardsticks": self.yardsticks}


def pytest_addoption(parser):
    """Adds the options."""
    parser.addoption(
        "--spent",
        type=Path,
        help="write processor seconds by room, and of the yardstick, to this file",
    )
    parser.addoption("--ranks", action="store_true", help="start the fork server before the first test")


def pytest_configure(config):
    """Starts counting, and hands the line tracer to the ranks where lines are wanted."""
    config.pluginmanager.register(Meter(), "meter")
    if sitecustomize.FOLDER in os.environ:
        sys.path.insert(0, str(Path(__file__).parent / "in_ranks"))


def pytest_unconfigure(config):
    """Writes the sums, from the process that the user started."""
    path = config.getoption("--spent")
    if path and not hasattr(config, "workerinput"):
        meter = config.pluginmanager.getplugin("meter")
        path.write_text(json.dumps(meter.measured()), encoding="utf-8")
