"""`plab doctor`: what will run where, and why."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

from parallel_lab.cli import late
from parallel_lab.course import progress
from parallel_lab.trace.units import format_bytes

LEAST_FREE_BYTES = 2**30


class Finding(NamedTuple):
    """One line of the report."""

    well: bool  # whether nothing is wrong
    what: str  # what was looked at
    seen: str  # what was seen there

    def __str__(self) -> str:
        return f"{'ok ' if self.well else 'NO '} {self.what:<12} {self.seen}"


@click.command("doctor", epilog="Example: plab doctor")
def command() -> None:
    """Say what will run where, and why. Exit code 1 if something is missing."""
    found = findings()
    click.echo("\n".join(map(str, found)))
    sys.exit(not all(finding.well for finding in found))


def findings() -> list[Finding]:
    """Everything, in the order in which a problem would show; nothing raises."""
    looks = (_python, _torch, _platform, _cores, _memory, _gpus, _devices, _disk, _progress, _ranks)
    return [_safely(look) for look in looks]


def _safely(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # a doctor who faints helps nobody
        return Finding(False, look.__name__.lstrip("_"), f"{type(error).__name__}: {error}".split("\n")[0])


def _python() -> Finding:
    return Finding(sys.version_info >= (3, 11), "python", f"{platform.python_version()} at {sys.executable}")


def _torch() -> Finding:
    build = f"CUDA {late.torch.version.cuda}" if late.torch.version.cuda else "CPU build"
    enough = tuple(int(part) for part in late.torch.__version__.split("+")[0].split(".")[:2]) >= (2, 11)
    return Finding(enough and late.distributed.is_gloo_available(), "torch", f"{late.torch.__version__}, {build}")


def _platform() -> Finding:
    if os.name == "nt":
        return Finding(False, "platform", "Windows has no fork server: run JupyterLab inside WSL2 (`wsl --install`)")
    notes = ""
    if sys.platform == "darwin":
        notes = "; memory limits are not enforced here, all else works as on Linux"
    elif "microsoft" in platform.release().lower():
        notes = "; under WSL2: keep the course in the Linux file system, /mnt/c is slow"
    return Finding(True, "platform", f"{platform.system()} {platform.release()}, {platform.machine()}{notes}")


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding(True, "cpu", f"{usable} cores; more ranks than cores take turns, so their times prove nothing")


def _memory() -> Finding:
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding(total_bytes >= 4e9, "memory", format_bytes(total_bytes))


def _gpus() -> Finding:
    if not late.torch.cuda.is_available():
        return Finding(True, "gpu", "none that torch sees; the course runs on the CPU")
    names = ", ".join(late.torch.cuda.get_device_name(i) for i in range(late.torch.cuda.device_count()))
    closed = [mode for mode in _compute_modes() if mode != "Default"]
    if closed:
        cure = "the second rank on it fails; `nvidia-smi -c DEFAULT`, as root, lets several in"
        return Finding(False, "gpu", f"{names}; compute mode {closed[0]}: {cure}")
    shared = "ranks that share a GPU take turns on it, so their times show neither speed-up nor overlap"
    return Finding(True, "gpu", f"{names}; {shared}")


def _compute_modes() -> list[str]:
    """The compute mode of each GPU, as `nvidia-smi` names it; empty where it cannot be asked."""
    if shutil.which("nvidia-smi") is None:
        return []
    question = ["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"]
    return subprocess.run(question, capture_output=True, text=True, timeout=30).stdout.split()


def _devices() -> Finding:
    return Finding(True, "ranks use", f"{late.choose_device(4).why} (for 4 ranks)")


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(Path.cwd()).free
    return Finding(free_bytes > LEAST_FREE_BYTES, "disk", f"{format_bytes(free_bytes)} free here")


def _progress() -> Finding:
    file = progress.location()
    writable = os.access(next(one for one in (file, *file.parents) if one.exists()), os.W_OK)
    return Finding(writable, "progress", f"{file}{'' if file.exists() else ' (not begun)'}")


def _ranks() -> Finding:
    torch, dist = late.torch, late.distributed

    def rank_sum() -> float:  # defined here, so that it travels by value and a rank need not import this module
        mine = torch.ones(1)
        dist.all_reduce(mine)
        return mine.item()

    began_s = time.monotonic()
    first = late.launch(rank_sum, ranks=2, echo=False)
    cold_s, began_s = time.monotonic() - began_s, time.monotonic()
    late.launch(rank_sum, ranks=2, echo=False)
    warm_s = time.monotonic() - began_s
    seen = f"2 real ranks agreed; first launch {cold_s:.2f} s with the fork server, the next {warm_s:.2f} s"
    return Finding(first.results == [2.0, 2.0], "launch", seen)
