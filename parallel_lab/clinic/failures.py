"""What fails at real clusters, and how often: published counts, and the chance that a job meets one bad machine.

The tables stand in `failures.yaml` with their sources. They count different things: interruptions of one job (Llama 3),
jobs and the GPU time of jobs (Acme, Philly), large jobs before and after a cure (Kokolis et al.). A share of jobs and a
share of GPU time may say opposite things about the same cluster.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def published() -> dict[str, list[list[Any]]]:
    """The rows of each table; leave them as they are."""
    return yaml.safe_load(Path(__file__).with_name("failures.yaml").read_text(encoding="utf-8"))


def by_category() -> Counter[str]:
    """Unexpected interruptions of Llama 3 405B by category: GPU, software, network, ..."""
    counted: Counter[str] = Counter()
    for _, category, count in published()["llama3"]:
        counted[category] += count
    return counted


def meets_one(machines: int, share: float) -> float:
    """The chance that at least one of `machines` is of a kind that makes up `share` of all, drawn independently."""
    return 1 - (1 - share) ** machines


def hang_gpu_hours(gpus: int, notice_s: float, restart_s: float, lost_s: float = 0.0) -> float:
    """GPU hours that one hang costs: until it is noticed, the restart, and the steps since the last save done again."""
    return gpus * (notice_s + restart_s + lost_s) / 3600
