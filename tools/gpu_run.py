"""Runs everything that needs CUDA, one section after the other, and writes one table of what became of each.

Run by `make gpu`, and by `run.sh` of the bundle that tools/gpu_bundle.sh makes. Each section is a process with a time
limit of its own; one that fails or hangs does not stop the others. What a section prints goes to a log beside the
table, and its last line is its result. Without CUDA, or with --cpu, what can run does so on the CPU, and the table
says that nothing ran on CUDA.
"""

import argparse
import contextlib
import datetime
import itertools
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from parallel_lab.runtime import choose_device

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 1200.0  # of the whole run
GRACE_S = 10.0  # from Ctrl-C to the end
RANKS = 4  # that a chapter runs at a time: a core each
QUIET = {
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
LAUNCH_TIMES = """
import time
import torch
from parallel_lab import launch
from parallel_lab.runtime import rank_device

def seconds(ranks):
    began_s = time.perf_counter()
    launch(lambda: torch.ones(1, device=rank_device()).item(), ranks=ranks)
    return time.perf_counter() - began_s

first, warm, one = seconds(2), [seconds(4) for _ in range(3)], seconds(1)
print(f"first, 2 ranks: {first:.1f} s; warm, 4 ranks: {min(warm):.2f} to {max(warm):.2f} s; warm, 1 rank: {one:.2f} s")
"""
CANNOT_SHOW = """
Ranks that share one GPU take turns on it and talk through gloo and host memory. So a single GPU cannot show: several
ranks under NCCL, the overlap of ranks, or how fast a cluster is. A ratio compares two programs in the same ranks.
"""


class Section(NamedTuple):
    """One row of the table: what it is, the arguments of Python, and the most seconds it may take.

    A section `beside` others may run while they do: it measures no time.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    beside: bool = False


class Outcome(NamedTuple):
    """What became of a section: `result` is the cell of the table, `failures` the lines that say what failed."""

    passed: bool
    seconds: float
    result: str
    failures: tuple[str, ...] = ()


def sections(cuda: bool) -> list[Section]:
    """All sections; those that say most come first. Without CUDA the tests' cases for the CPU run."""

    def tests(name: str, limit_s: float, *paths: str) -> Section:
        marked = ("-m", "gpu" if cuda else "not gpu")
        options = ("-q", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--tb=short", *marked)
        return Section(name, ("-m", "pytest", *options, *(f"tests/{path}" for path in paths)), limit_s)

    def chapter(number: str, *options: str) -> Section:
        (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        what = "its tensors on the ranks' device" if options else "as it stands"
        return Section(f"chapter {number}, {what}", ("tools/run_cells.py", str(path), *options), 150, beside=True)

    chapters = ("00", "03", "06")
    return [
        Section("starting ranks", ("-c", LAUNCH_TIMES), 60),
        tests("collectives, messages, training, faults, the link", 90, "runtime/test_devices.py"),
        tests("techniques end where one process ends; each records a plan", 120, "techniques"),
        tests("every collective, torch's and ours, to the last bit", 60, "collectives/test_devices.py"),
        tests("tensor parallel: parity, dropout, recomputation", 60, "tensor_parallel/test_devices.py"),
        tests("expert parallel: parity, ties, capacity, recomputation", 60, "expert_parallel/test_devices.py"),
        tests(
            "context parallel: ring attention and Ulysses, in 64 and in 16 bits", 60, "context_parallel/test_devices.py"
        ),
        tests("pruned, low-rank and adapted models are those of the CPU", 60, "compress/test_prune_devices.py"),
        tests("compressed gradients: every hook, quantized Zero3", 60, "compress/gradients/test_devices.py"),
        tests("quantization: codes bit for bit, GPTQ, training", 60, "compress/test_quantization_devices.py"),
        tests("precision: mixed, loss scaling, codes of 8 bits", 60, "precision/test_devices.py"),
        tests("profiles of a GPU, pinned batches, the memory pool, checkpointing", 90, "performance/test_devices.py"),
        tests("metrics over ranks: counts, AUC, calibration, perplexity", 60, "systems/evaluation/test_devices.py"),
        tests("security: rules, masked sums, private steps, inversion", 60, "systems/security/test_devices.py"),
        tests("energy: NVML while a matrix product runs", 60, "systems/energy/test_devices.py"),
        tests("serving: decoding alone, over ranks, and apart", 60, "systems/serving/test_devices.py"),
        tests("every pipeline schedule ends where one process ends", 60, "pipeline/test_devices.py"),
        tests("layouts of all axes end where one process ends", 90, "hybrid/test_devices.py"),
        tests("the training command, float32 and bfloat16", 90, "hybrid/test_train_devices.py"),
        tests("checkpoints from any device and layout to any other", 60, "hybrid/test_checkpoint_devices.py"),
        tests("PyTorch's DDP, FSDP2, tensor parallel, pipelining", 90, "runtime/test_torch_on_devices.py"),
        tests("fault reports", 90, "runtime/test_faults_on_devices.py"),
        *(Section(f"benchmark: {name}", ("benchmarks/gpu.py", name), 60) for name in ("ddp", "zero3", "all_reduce")),
        Section("benchmark: the training command, 124 M parameters", ("benchmarks/train.py",), 120),
        Section("benchmark: bfloat16 against float32, 124 M parameters", ("benchmarks/precision.py",), 120),
        Section("benchmark: a structured MLP", ("benchmarks/structured.py", "--width", "4096", "--batch", "4096"), 90),
        Section("benchmark: tensor parallel", ("benchmarks/tensor_parallel.py", "--ranks", "2"), 90),
        Section("benchmark: ring attention", ("benchmarks/ring_attention.py", "--ranks", "2"), 60),
        *(chapter(number, "--on-gpu") for number in chapters),
        *(chapter(number) for number in chapters),
    ]


def run(section: Section, limit_s: float, log: Path) -> Outcome:
    """Runs a section for at most `limit_s` seconds, its output in `log`."""
    began_s, command = time.monotonic(), [sys.executable, *section.arguments]
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **QUIET, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    result = lines[-1] if lines else "printed nothing"
    if code is None:
        result = f"stopped after {limit_s:.0f} s; the last line: {result}"
    failures = tuple(line for line in lines if line.startswith(("FAILED ", "ERROR ")))
    return Outcome(code == 0, time.monotonic() - began_s, result, failures)


def _end(process: subprocess.Popen) -> None:
    """Ends a section that still runs: first as Ctrl-C does, so that its ranks end and pytest counts, then at once."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)


def run_all(found: Sequence[Section], limit_s: float, logs: Path) -> list[tuple[Section, Outcome]]:
    """Runs the sections until the time for all is up, and says how each went; those at the end side by side."""
    ends_s, rows = time.monotonic() + limit_s, []
    logs.mkdir(parents=True, exist_ok=True)

    def one(section: Section) -> tuple[Section, Outcome]:
        label, left_s = f"[{found.index(section) + 1}/{len(found)}] {section.name}", ends_s - time.monotonic()
        print(f"{label} ...", flush=True)
        if left_s < 1:
            outcome = Outcome(False, 0.0, "not run: no time was left")
        else:
            outcome = run(section, min(section.limit_s, left_s), logs / f"{found.index(section) + 1:02}.log")
        word = "passed" if outcome.passed else "FAILED"
        print(f"{label}: {word} in {outcome.seconds:.0f} s: {outcome.result}", flush=True)
        return section, outcome

    for beside, group in itertools.groupby(found, key=lambda section: section.beside):
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // RANKS) if beside else 1) as pool:
            rows += pool.map(one, group)
    return rows


def machine(cuda: bool) -> str:
    """The date, the hardware and the versions, in sentences."""
    today = datetime.datetime.now(datetime.UTC).date()
    gpus = _nvidia_smi("name,driver_version") if cuda else ""
    hardware = f"{gpus.replace(chr(10), '; ') or 'a GPU'} (name, driver)" if cuda else "the CPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    how = "; ".join(dict.fromkeys(choose_device(ranks).why for ranks in (2, 4)))
    nothing = "" if cuda else " **Nothing ran on CUDA.**"
    return f"On {today}, on {hardware}, {os.cpu_count()} cores, {versions}.{nothing} Ranks talk through {how}."


def _nvidia_smi(query: str) -> str:
    """What nvidia-smi says of each GPU, one line per GPU; asking makes no context on it."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def report(about: str, rows: Sequence[tuple[Section, Outcome]], after: str) -> str:
    """The table in Markdown, with what failed below it."""
    lines = ["# What ran on a GPU", "", about, "", "| section | passed | seconds | result |", "|---|---|---|---|"]
    for section, outcome in rows:
        result = outcome.result.strip("= ").replace("|", "\\|")
        lines.append(f"| {section.name} | {'yes' if outcome.passed else '**no**'} | {outcome.seconds:.0f} | {result} |")
    lines += ["", after, CANNOT_SHOW.strip()] if after else ["", CANNOT_SHOW.strip()]
    failures = [line for _, outcome in rows for line in outcome.failures]
    if failures:
        lines += ["", "```", *failures, "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command; 1 if a section failed."""
    parser = argparse.ArgumentParser(description="Run everything that needs CUDA and write one table.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu.md", help="the table (build/gpu.md)")
    parser.add_argument("--cpu", action="store_true", help="hide the GPU and run on the CPU what can run there")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS", help="for all sections together")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only the sections whose name has one of these words")
    options = parser.parse_args()
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(QUIET)
    cuda, out = torch.cuda.is_available(), options.out.resolve()
    words = options.only or [""]
    chosen = [section for section in sections(cuda) if any(word in section.name for word in words)]
    if not chosen:
        parser.error(f"no section is named so; there are: {'; '.join(section.name for section in sections(cuda))}")
    print(about := machine(cuda), flush=True)
    try:
        rows = run_all(chosen, options.limit, out.parent / "gpu_logs")
    except KeyboardInterrupt:
        print("\nstopped; no table was written", file=sys.stderr)
        return 130
    after = f"After the run the GPU held {_nvidia_smi('memory.used') or 'an unknown amount'}." if cuda else ""
    out.write_text(report(about, rows, after), encoding="utf-8")
    print(f"\n{out.read_text(encoding='utf-8')}\nThe table stands in {options.out}, the logs beside it in gpu_logs/.")
    if cuda:
        print("To keep it: cp build/gpu.md benchmarks/gpu.md")
    return int(not all(outcome.passed for _, outcome in rows))


if __name__ == "__main__":
    sys.exit(main())
