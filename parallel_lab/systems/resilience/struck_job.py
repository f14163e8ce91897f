"""The job that the fault campaign strikes: data-parallel training that saves every other step and resumes bit by bit.

It has what a real job has, at the size of a tenth of a second: an order of samples, forward, backward, all-reduce,
AdamW, a comparison of the replicas every step, and checkpoints in shards with checksums. At each *moment* it calls its
`strike`, which does nothing, or what a fault does.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.data_parallel import average_gradients
from parallel_lab.model import build
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.corruption import checksum, compare_replicas, held_by
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.state import State
from parallel_lab.systems.resilience.together import agreed, gathered

STEPS, EVERY, BATCH, SAMPLES = 6, 2, 12, 60  # a batch of 12 has equal shares for 2, 3 and 4 ranks
WIDTHS = (8, 16, 4)
REDUCED = 2 * (len(WIDTHS) - 1)  # all-reduces of a step: weight and bias of each layer
MOMENTS = (
    "loading",  # after the newest whole checkpoint was found, before it is read
    "data",
    "forward",
    "backward",  # gradients of this rank alone
    "reduced",  # averaged gradients
    "updated",
    "saving",  # the folder is there, this rank's shard is not
    "written",  # this rank's shard is written, and not all ranks know it
    "indexed",  # rank 0 has written the index and published nothing
    "published",  # rank 0 has renamed the folder, and the others do not know it
)
RANK_0 = ("indexed", "published")  # moments that rank 0 alone passes


class Shown(NamedTuple):
    """What a strike gets to see."""

    moment: str
    step: int
    net: nn.Module
    partial: Path | None  # the hidden folder of a checkpoint that is being written


Strike = Callable[[Shown], bool | None]  # True: this rank leaves the job and returns


class Outcome(NamedTuple):
    """What a rank returns."""

    start: int  # the step from which it went on, 0 for the beginning
    bits: int  # the checksum of weights and moments in the end


class Job:
    """The job on this rank."""

    def __init__(self, where: str, strike: Strike) -> None:
        self.where, self.struck = Path(where), strike
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        generator = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(SAMPLES, WIDTHS[0], generator=generator)
        self.labels = torch.randint(WIDTHS[-1], (SAMPLES,), generator=generator)
        self.net = build(WIDTHS, seed=1)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2)
        self.state = State({"weights": self.net, "optimizer": self.optimizer})
        self.order, self.done, self.partial = Order(SAMPLES), 0, None

    def strike(self, moment: str) -> bool:
        """Comes past a moment; True where this rank is to leave."""
        return bool(self.struck(Shown(moment, self.done, self.net, self.partial)))

    def run(self, steps: int) -> Outcome:
        """Trains up to `steps` steps in all, from the newest whole checkpoint on."""
        self.load()
        start = self.done
        while self.done < steps:
            if self.step():
                break
            self.done += 1
            if self.done % EVERY == 0:
                self.save()
        return Outcome(start, checksum(held_by(self.net, self.optimizer)))

    def step(self) -> bool:
        """One step; True where this rank leaves in the middle of it."""
        mine = self.order.take(self.done * BATCH, BATCH, rank=self.rank, ranks=self.ranks)
        if self.strike("data"):
            return True
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.net(self.inputs[mine]), self.labels[mine])
        if self.strike("forward"):
            return True
        loss.backward()
        if self.strike("backward"):
            return True
        average_gradients(self.net)
        self.strike("reduced")
        self.optimizer.step()
        self.strike("updated")
        replicas = compare_replicas(held_by(self.net, self.optimizer))
        if self.rank in replicas.odd or not (replicas.equal or replicas.odd):
            raise ValueError(f"silent corruption after step {self.done}: {replicas}")
        if not replicas.equal:
            dist.barrier()  # the odd rank's own error is the one to report
        return False

    def load(self) -> None:
        """Takes the newest whole checkpoint, which rank 0 finds for all, or begins anew."""
        found: list = [folder.latest_whole(self.where)] if self.rank == 0 else [None]
        dist.broadcast_object_list(found)
        if checkpoint := found[0]:
            self.strike("loading")
            name = folder.shard(self.rank)
            saved = folder.read(checkpoint / name, folder.stamps(folder.read_index(checkpoint))[name])
            self.done = self.state.load(saved) // BATCH

    def save(self) -> None:
        """Writes a checkpoint: each rank its shard, rank 0 the index, and then it is seen."""
        if self.rank == 0:
            with folder.writing(self.where) as partial:
                stamps = self._shards(partial)
                folder.write(partial / folder.INDEX, {"files": stamps, "step": self.done})
                self.strike("indexed")
                folder.publish(partial, self.done, keep=STEPS)
                self.strike("published")
        else:
            self._shards(None)
        dist.barrier()

    def _shards(self, partial: Path | None) -> dict[str, tuple]:
        """Writes this rank's shard; returns the stamps of all."""
        named: list = [partial]
        dist.broadcast_object_list(named)
        self.partial = named[0]
        return dict(gathered(agreed(self._shard, f"cannot save step {self.done}")))

    def _shard(self) -> tuple[str, tuple]:
        """Writes this rank's shard; returns its name and stamp."""
        assert self.partial
        self.strike("saving")
        name = folder.shard(self.rank)
        stamp = folder.write(self.partial / name, self.state.save(self.done * BATCH))
        self.strike("written")
        return name, tuple(stamp)


def run_job(where: str, strike: Strike | None = None, steps: int = STEPS, marks: str = "") -> Outcome:
    """What a rank runs: the job, after it has noted its process in the folder `marks`."""
    if marks:
        Path(marks, f"rank-{os.getpid()}").touch()
    return Job(where, strike or (lambda _: None)).run(steps)
