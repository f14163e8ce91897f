"""The unit that multiplies here: what it is, which instructions for 16 bits it has, and how long a product takes on it.

A narrow format is fast where hardware multiplies it, and slow where a library converts every number first. So a time
without the name of the unit says nothing of another one.
"""

import re
import time
from pathlib import Path
from typing import NamedTuple

import torch

CPUINFO = Path("/proc/cpuinfo")
FLAGS = ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16", "bf16", "fphp", "asimdhp")  # of x86, then of Arm


class Unit(NamedTuple):
    """A GPU, or the CPU.

    Attributes:
        name: As the machine gives it.
        instructions: Those for 16 bits that it says it has; empty where it has none, or does not say.
        vectors: Of a CPU, the widest that torch uses: AVX512, AVX2 or less.
    """

    name: str
    instructions: tuple[str, ...]
    vectors: str = ""

    def __str__(self) -> str:
        width = f", {self.vectors}" * bool(self.vectors)
        return f"{self.name}{width}; for 16 bits: {', '.join(self.instructions) or 'no instructions that it names'}"


def unit(device: str | torch.device = "cpu") -> Unit:
    """What multiplies on `device`; macOS and Windows do not say which instructions it has."""
    if torch.device(device).type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        kinds = (("float16", 70), ("bfloat16", 80), ("float8", 89))
        cores = tuple(f"{name} tensor cores" for name, least in kinds if 10 * major + minor >= least)
        return Unit(torch.cuda.get_device_name(device), cores)
    said = CPUINFO.read_text() if CPUINFO.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", said, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", said, re.MULTILINE)
    has = set(flags.group(1).split()) if flags else set()
    found = tuple(flag for flag in FLAGS if flag in has)
    return Unit(name.group(1).strip() if name else "a CPU", found, torch.backends.cpu.get_cpu_capability())


def product_s(dtype: torch.dtype, size: int, *, device: str | torch.device = "cpu", times: int = 5) -> float:
    """The least seconds of a product of two square matrices, (size, size).

    On a CPU they are the processor's, of all threads together, so that what else runs here does not count.
    """
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    clock, taken = time.perf_counter if a.is_cuda else time.process_time, []
    for _ in range(times + 1):  # the first chooses a kernel and fills caches
        began_s = clock()
        torch.mm(a, b)
        if a.is_cuda:
            torch.cuda.synchronize()
        taken.append(clock() - began_s)
    return min(taken[1:])
