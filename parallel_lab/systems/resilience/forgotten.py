"""What a checkpoint forgot, and the first step at which the resumed run shows it.

A small job has one of everything that a checkpoint must bring back: a model with dropout, AdamW, a learning rate that
falls, loss scaling in float16, noise drawn by NumPy, a brightness drawn by Python, and an order of samples. It is saved
in the middle and goes on. Then it is begun anew, as a restarted program begins: seeds set, model built, everything at
its start. It loads the checkpoint but for one part, and its losses are held against those of the run that went on.

Losses are compared bit by bit, so the same build of torch on the same device must run both.
"""

import io
import random
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from parallel_lab.data_parallel import DDP
from parallel_lab.precision import DynamicScale
from parallel_lab.runtime import rank_device
from parallel_lab.runtime.group import member
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.state import PARTS, State
from parallel_lab.systems.resilience.together import gathered

SAMPLES, BATCH, WIDTH, SEED = 40, 12, 16, 3
EVERYTHING, RANK_0 = "nothing", "generators of rank 0"  # nothing is forgotten; all ranks take rank 0's generators


class Job:
    """The small data-parallel job on this rank, at its start."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group, self.device = member(group), rank_device()
        seed = SEED + self.group.rank()
        torch.manual_seed(SEED)  # all ranks build the same model
        self.model = nn.Sequential(nn.Linear(WIDTH, 32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 4)).to(self.device)
        self.images = torch.randn(SAMPLES, WIDTH)
        self.labels = torch.randint(4, (SAMPLES,))
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self.ddp = DDP(self.model, check_finite=False, group=self.group)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.scheduler = LambdaLR(self.optimizer, lambda steps: 1 / (1 + steps))
        self.scaler = DynamicScale(initial=2.0**24, backoff=2.0**-6, group=self.group)  # the first steps are skipped
        self.order, self.position = Order(SAMPLES, seed=SEED), 0
        parts = {"weights": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}
        self.state = State(parts, self.device)

    def batch(self) -> tuple[Tensor, Tensor]:
        """This rank's share of the next batch, brighter or darker, with noise."""
        mine = self.order.take(self.position, BATCH, rank=self.group.rank(), ranks=self.group.size())
        images = self.images[mine] * random.uniform(0.5, 1.5)
        noise = torch.from_numpy(np.random.standard_normal(images.shape).astype(np.float32))
        return (images + 0.1 * noise).to(self.device), self.labels[mine].to(self.device)

    def step(self) -> float:
        """One step; the loss over all ranks, each counted by its samples."""
        images, labels = self.batch()
        with torch.autocast(self.device.type, torch.float16):
            logits = self.ddp(images)
        loss = cross_entropy(logits.float(), labels, reduction="sum") * self.group.size() / BATCH  # DDP takes the mean
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.scaler.step(self.optimizer):
            self.scheduler.step()
        self.scaler.update()
        self.position += BATCH
        total = loss.detach() / self.group.size()
        dist.all_reduce(total, group=self.group)
        return total.item()


def differences(
    parts: Collection[str] = (EVERYTHING, *PARTS, RANK_0), *, steps: int = 6, at: int = 5
) -> dict[str, int | None]:
    """By what is forgotten, the first step after the resume whose loss differs, from 0; None where none does.

    All ranks of the default group call it. `cuda` is left out where the job runs on the CPU.

    Args:
        parts: what is forgotten in turn: one of `state.PARTS`, `EVERYTHING` for a whole checkpoint, or `RANK_0`.
        steps: how many are compared.
        at: after how many steps the checkpoint is written.
    """
    job = Job()
    for _ in range(at):
        job.step()
    saved = file_of(job.state.save(job.position))
    through = [job.step() for _ in range(steps)]
    here = [part for part in parts if part != "cuda" or job.device.type == "cuda"]
    return {part: next(_differ(through, resumed(saved, part)), None) for part in here}


def resumed(saved: bytes, forgotten: str) -> Iterator[float]:
    """The losses of the job that is begun anew and loads all of `saved` but what is forgotten."""
    everyone = gathered(saved) if forgotten == RANK_0 else []
    job, content = Job(), torch.load(io.BytesIO(saved), weights_only=True)
    if everyone:
        first = torch.load(io.BytesIO(everyone[0]), weights_only=True)
        content |= {name: first[name] for name in ("torch", "numpy", "python", "cuda") if name in first}
    job.position = job.state.load(content, without=(forgotten,))
    while True:
        yield job.step()


def file_of(content: Any) -> bytes:
    """What a file would have."""
    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getvalue()


def _differ(expected: list[float], found: Iterator[float]) -> Iterator[int]:
    """The steps whose losses differ, all of them taken: each rank must take as many."""
    pairs = zip(expected, found, strict=False)
    yield from [step for step, (loss, other) in enumerate(pairs) if loss != other]
