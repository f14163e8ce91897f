"""What a run shows while it goes on: how far it is, how fast, and at which share of the card's peak.

Model FLOPs utilization (MFU) is the share of the peak arithmetic that the model's own products take: Chowdhery et al.
2022, "PaLM", section 4.1 and appendix B. What is computed again (recomputation) does not count. The peaks are those of
the vendor's data sheets, without sparsity, in the dtype that the products have.
"""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

import torch

WIDTH = 30
PEAKS_TFLOPS = {  # name of the card -> bfloat16 and float32, dense; the first that fits counts
    "H100 PCIe": (756.0, 51.0),
    "H100 NVL": (835.0, 60.0),
    "H100": (989.0, 67.0),
    "H200 NVL": (835.0, 60.0),
    "H200": (989.0, 67.0),
    "A100": (312.0, 19.5),
    "L40S": (362.0, 91.6),
    "L4": (121.0, 30.3),
    "A10": (125.0, 31.2),
}
"""From NVIDIA's data sheets of the cards, 2020 to 2024; float32 without TF32."""


def peak_flops(device: torch.device, dtype: torch.dtype, named_tflops: float | None = None) -> float | None:
    """FLOP/s that this rank's device can reach at most: as named, or of its card; None of what is not in the table."""
    if named_tflops is not None:
        return 1e12 * named_tflops
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    for name, (bfloat16, float32) in PEAKS_TFLOPS.items():
        if all(word in words for word in name.split()):
            return 1e12 * (bfloat16 if dtype == torch.bfloat16 else float32)
    return None


class Pace:
    """Steps per second since the last look, and over the whole run but its first step, which is slow."""

    def __init__(self, tokens: int, flops_per_token: float, peak: float | None) -> None:
        self.tokens, self.flops, self.peak = tokens, flops_per_token, peak
        self.steps = 0
        self.began_s = self.looked_s = time.perf_counter()
        self.looked_steps = 0

    def step(self) -> None:
        """A step is done."""
        self.steps += 1
        if self.steps == 1:
            self.began_s = self.looked_s = time.perf_counter()
            self.looked_steps = 1

    def lately(self) -> str:
        """Tokens per second since this was last asked, and MFU where the peak is known."""
        now_s = time.perf_counter()
        text = self._said(self.steps - self.looked_steps, now_s - self.looked_s)
        self.looked_steps, self.looked_s = self.steps, now_s
        return text

    def overall(self) -> str:
        """The same since the first step."""
        return self._said(self.steps - 1, time.perf_counter() - self.began_s)

    def _said(self, steps: int, seconds: float) -> str:
        if steps < 1 or seconds <= 0:
            return ""
        speed = steps * self.tokens / seconds
        share = f"  MFU {100 * self.flops * speed / self.peak:.1f} %" if self.peak else ""
        return f"{speed:,.0f} tokens/s{share}"


class Bar:
    """How far a run is: in a terminal a line that writes over itself, elsewhere a line at each look."""

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self.total, self.out = total, out or sys.stdout
        self.live, self.open = self.out.isatty(), False

    def show(self, done: int, *facts: str) -> None:
        """`done` steps of all, and what else there is to say."""
        said = "  ".join(filter(None, facts))
        if self.live:
            filled = WIDTH * done // max(1, self.total)
            text = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {done} of {self.total}  {said}"
            print(f"\r\x1b[K{text}", end="", file=self.out, flush=True)
            self.open = True
        else:
            print(f"step {done} of {self.total}  {said}", file=self.out, flush=True)

    def say(self, text: str) -> None:
        """A line of its own, under what the bar has shown."""
        print(f"{self.close()}{text}", file=self.out, flush=True)

    def close(self) -> str:
        """What ends the line that the bar is on."""
        ended, self.open = "\n" if self.open else "", False
        return ended


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other, the first to the left and the others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    sides = ["<", *">" * (len(widths) - 1)]
    lines = ("  ".join(f"{cell:{s}{w}}" for cell, s, w in zip(row, sides, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
