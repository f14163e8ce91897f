"""What may happen to a job: the faults of a campaign, each with the report that it must end in.

A case is drawn from its seed: a kind, a rank, a step, and a moment of the job. `Striker` carries it out in the rank,
`launch` at a collective (`Kill`, `Delay`, `Drop`), and `damage` on the files of a checkpoint.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from parallel_lab.runtime import Delay, Drop, Fault, Kill
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.corruption import flip
from parallel_lab.systems.resilience.struck_job import EVERY, MOMENTS, RANK_0, REDUCED, STEPS, Shown

ANY = MOMENTS
COMPUTING = ("data", "forward", "backward")
SAVING = ("saving", "written", *RANK_0)
ENOUGH_BYTES = 2**28  # what a rank may allocate where memory is to run out
OPS = {"all_reduce": REDUCED * STEPS, "all_gather": STEPS, "barrier": STEPS // EVERY}  # that a rank makes, at least


class Kind(NamedTuple):
    """One kind of fault.

    Attributes:
        moments: when it may strike; none of a fault that strikes at a collective or on files.
        errors: the names of what `launch` may raise; "" where the run may go on.
        cause: the `cause` of a RankFailed; "" for any.
        says: what the report must contain; RANK stands for the rank that was struck.
    """

    moments: tuple[str, ...]
    errors: tuple[str, ...]
    cause: str
    says: str


KINDS = {
    "killed": Kind(ANY, ("RankFailed",), "killed", r"rank RANK was killed by SIGKILL"),
    "terminated": Kind(ANY, ("RankFailed",), "killed", r"rank RANK was killed by SIGTERM"),
    "crash": Kind(ANY, ("RankFailed",), "killed", r"rank RANK was killed by SIGSEGV"),
    "exit": Kind(ANY, ("RankFailed",), "exit", r"rank RANK exited with code 3"),
    "sys.exit": Kind(ANY, ("RankFailed",), "exit", r"rank RANK failed:(.|\n)*sys.exit\(5\)"),
    "exception": Kind(ANY, ("RankFailed",), "", r"rank RANK failed:(.|\n)*by zero"),
    "no memory": Kind(ANY, ("RankFailed",), "", r"rank RANK failed:(.|\n)*ran out of memory"),
    "stopped": Kind(ANY, ("Deadlock",), "", r"rank RANK is stopped"),
    "hang": Kind(ANY, ("Deadlock",), "", r"rank RANK is busy at faults.py, line \d+: `os.read"),
    "slow": Kind(ANY, ("",), "", ""),
    "NaN": Kind(("backward",), ("RankFailed",), "ValueError", r"rank RANK: the gradient of \S+ is NaN or infinite"),
    "flipped gradient": Kind(("reduced",), ("RankFailed", ""), "ValueError", r"silent corruption after step STEP"),
    "flipped weight": Kind(("updated",), ("RankFailed",), "ValueError", r"silent corruption after step STEP"),
    "leaves early": Kind(COMPUTING, ("Deadlock",), "", r"rank RANK returned"),
    "other size": Kind(("backward",), ("RankFailed", "Deadlock"), "", r"on 12 bytes"),
    "other collective": Kind(("backward",), ("RankFailed", "Deadlock"), "", r"called (barrier|all_reduce) where"),
    "disk full": Kind(("saving",), ("RankFailed",), "OSError", r"rank RANK failed:(.|\n)*File too large"),
    "folder vanishes": Kind(("saving",), ("RankFailed",), "FileNotFoundError", r"is not there|No such file"),
    "two savers": Kind((), ("RankFailed",), "ValueError", r"rank 0 failed:(.|\n)*another run is saving into"),
    "killed in a collective": Kind((), ("RankFailed",), "killed", r"rank RANK was killed by SIGKILL, as Kill\("),
    "slow collective": Kind((), ("",), "", ""),
    "dropped collective": Kind((), ("Deadlock", "RankFailed", "Mismatch"), "", r"a fault dropped rank RANK's"),
    "flipped bit in a file": Kind((), ("",), "", r"FILE"),
    "truncated file": Kind((), ("",), "", r"FILE"),
    "emptied file": Kind((), ("",), "", r"FILE"),
    "removed file": Kind((), ("",), "", r"FILE"),
    "older file": Kind((), ("",), "", r"FILE"),
    "removed index": Kind((), ("",), "", ""),
    "removed checkpoint": Kind((), ("",), "", ""),
}
FILES = tuple(name for name in KINDS if name.split()[-1] in ("file", "index", "checkpoint"))
AT_A_COLLECTIVE = ("killed in a collective", "slow collective", "dropped collective")


@dataclass(frozen=True)
class Case:
    """One fault: what, to whom, when, while what. `seed` draws all of it again."""

    seed: int
    kind: str
    ranks: int
    rank: int
    step: int
    moment: str
    detail: int  # what else is to be drawn: an element, a bit, a file

    @classmethod
    def draw(cls, seed: int, kind: str = "") -> "Case":
        """The case of a seed; of one kind, if that is given."""
        dice = random.Random(seed)
        drawn, ranks = dice.choice(list(KINDS)), dice.randint(2, 4)
        kind = kind or drawn
        moment = dice.choice(KINDS[kind].moments or ("",))
        rank = 0 if moment in RANK_0 else dice.randrange(ranks)
        step = dice.randrange(STEPS)
        if moment in SAVING:
            step = EVERY * dice.randint(1, STEPS // EVERY)
        return cls(seed, kind, ranks, rank, 0 if moment == "loading" else step, moment, dice.randrange(2**31))

    @property
    def resumes(self) -> bool:
        """Whether the struck run goes on from a checkpoint, and does not begin anew."""
        return self.moment == "loading" or self.kind in FILES

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What `launch` injects."""
        if self.kind not in AT_A_COLLECTIVE:
            return ()
        op = list(OPS)[self.detail % len(OPS)]
        nth = self.detail // len(OPS) % OPS[op]
        if self.kind == "slow collective":
            return (Delay(self.rank, op, nth, seconds=0.02),)
        return (Kill(self.rank, op, nth),) if self.kind == "killed in a collective" else (Drop(self.rank, op, nth),)

    def __str__(self) -> str:
        where = f"step {self.step}, while {self.moment}" if self.moment else ""
        if self.faults:
            where = f"{self.faults[0].kind} number {self.faults[0].nth}"
        if self.kind in FILES:
            where = "the newest checkpoint"
        return f"seed {self.seed}: {self.kind}, rank {self.rank} of {self.ranks}" + (f", {where}" if where else "")


@dataclass(frozen=True)
class Striker:
    """What strikes in the rank. `marks` is where a process that it starts is noted."""

    case: Case
    marks: str

    def __call__(self, shown: Shown) -> bool:
        """Strikes if this is the moment; True where the rank is to leave the job."""
        case = self.case
        if (shown.moment, shown.step, dist.get_rank()) != (case.moment, case.step, case.rank):
            return False
        if case.detail % 4 == 0:  # what a rank has started must end with it
            child = subprocess.Popen(["sleep", "600"])
            Path(self.marks, f"child-{child.pid}").touch()
        if case.kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[case.kind])
        if action := ACTIONS.get(case.kind):
            action(case, shown)
        return case.kind == "leaves early"


SIGNALS = {
    "killed": signal.SIGKILL,
    "terminated": signal.SIGTERM,
    "crash": signal.SIGSEGV,
    "stopped": signal.SIGSTOP,
}


def _no_memory(case: Case, _: Shown) -> None:
    size = 64 * ENOUGH_BYTES
    bytearray(size) if case.detail % 2 else torch.ones(size)


def _hang(_: Case, __: Shown) -> None:
    os.read(os.pipe()[0], 1)  # nobody writes


def _nan(case: Case, shown: Shown) -> None:
    gradient = _one(case, [p.grad for p in shown.net.parameters() if p.grad is not None])
    gradient.view(-1)[case.detail % gradient.numel()] = float("nan" if case.detail % 2 else "inf")


def _one(case: Case, tensors: list[torch.Tensor]) -> torch.Tensor:
    return tensors[case.detail // 64 % len(tensors)]


def _flip_gradient(case: Case, shown: Shown) -> None:
    gradient = _one(case, [p.grad for p in shown.net.parameters() if p.grad is not None])
    flip(gradient, case.detail % gradient.numel(), case.detail % 32)


def _flip_weight(case: Case, shown: Shown) -> None:
    weight = _one(case, list(shown.net.parameters()))
    flip(weight, case.detail % weight.numel(), case.detail % 32)


def _full(_: Case, __: Shown) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _vanish(_: Case, shown: Shown) -> None:
    assert shown.partial
    gone = shown.partial.with_name(".gone")
    os.rename(shown.partial, gone)  # at once: a folder into which another rank is writing is not removed piece by piece
    shutil.rmtree(gone)


ACTIONS = {
    "exit": lambda *_: os._exit(3),
    "sys.exit": lambda *_: exec("raise SystemExit(5)"),
    "exception": lambda *_: 1 // 0,
    "no memory": _no_memory,
    "hang": _hang,
    "slow": lambda *_: time.sleep(0.02),
    "NaN": _nan,
    "flipped gradient": _flip_gradient,
    "flipped weight": _flip_weight,
    "other size": lambda *_: dist.all_reduce(torch.ones(3)),
    "other collective": lambda *_: dist.barrier(),
    "disk full": _full,
    "folder vanishes": _vanish,
}


def damage(case: Case, checkpoint: Path, older: Path) -> Path:
    """Damages a file of `checkpoint` as the case says, and returns its path."""
    files = [folder.shard(rank) for rank in range(case.ranks)]
    if case.kind in ("flipped bit in a file", "truncated file", "emptied file"):
        files.append(folder.INDEX)
    file = checkpoint / files[case.detail % len(files)]
    size = file.stat().st_size
    if case.kind == "flipped bit in a file":
        data = bytearray(file.read_bytes())
        data[case.detail % size] ^= 1 << case.detail // 7 % 8
        file.write_bytes(data)
    elif case.kind == "truncated file":
        os.truncate(file, case.detail % size)
    elif case.kind == "emptied file":
        os.truncate(file, 0)
    elif case.kind == "older file":
        shutil.copy(older / file.name, file)
    elif case.kind == "removed file":
        file.unlink()
    elif case.kind == "removed index":
        (checkpoint / folder.INDEX).unlink()
    else:
        shutil.rmtree(checkpoint)
    return file
