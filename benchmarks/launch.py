"""How long a launch takes: 4 ranks that all-reduce one tensor and return, beside torchrun for the same work.

    python benchmarks/launch.py

Medians; the fork server is warm, as it is from a notebook's second launch on. torchrun is a new command each time, as
it always is.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from parallel_lab import launch

RANKS = 4
SCRIPT = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1000))
dist.destroy_process_group()
"""


def work() -> float:
    """What every rank does."""
    x = torch.ones(1000)
    dist.all_reduce(x)
    return x[0].item()


def seconds(action, tries: int) -> list[float]:
    """Wall-clock seconds of each of `tries` calls."""
    times = []
    for _ in range(tries):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return times


def torchrun(script: Path) -> None:
    """The same work as a command."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={RANKS}", "--standalone", script]
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Measures and prints the table."""
    cold = seconds(lambda: launch(work, ranks=RANKS), 1)[0]
    warm = statistics.median(seconds(lambda: launch(work, ranks=RANKS), 20))
    many = statistics.median(seconds(lambda: launch(work, ranks=32), 5))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "work.py"
        script.write_text(SCRIPT)
        other = statistics.median(seconds(lambda: torchrun(script), 3))
    print(f"| what | seconds | ratio to a warm launch of {RANKS} ranks |")
    print("|---|---|---|")
    rows = {f"launch, {RANKS} ranks, warm": warm, "launch, 32 ranks, warm": many, "launch, first of a kernel": cold}
    for name, took in {**rows, f"torchrun, {RANKS} ranks": other}.items():
        print(f"| {name} | {took:.3f} | {took / warm:.1f} |")


if __name__ == "__main__":
    main()
