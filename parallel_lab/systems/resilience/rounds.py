"""Who is in the group? Ranks agree on it in rounds, without a rank that must live.

    alive-3       locked by rank 3 for as long as it lives; the operating system takes the lock from the dead
    join-7-3      rank 3 asks for round 7, with the number of steps that it has done
    spare-4       rank 4 waits for a place
    round-7       the members of round 7: whoever writes it first decides

Any rank that sees the former members joined or dead proposes a group, and a hard link is made of it under the name of
the round. A link can be made once, so of several proposals one is valid, for all. That is the one thing that a store
has to offer, as `compare_set` of a TCPStore or a transaction of etcd; here it is a folder that all ranks see.

A lock tells death at once, and never of a rank that lives. It works on one host; between hosts it takes a `Heartbeat`,
which can be wrong, and then a rank that lives finds itself outside and has to ask for a place like any other.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

POLL_S = 0.002
NOTHING = -1  # the steps of a rank that has no weights yet


class NoReplica(RuntimeError):
    """Every rank that had weights is dead."""

    def __init__(self) -> None:
        super().__init__("every rank that had weights is dead: restart from a checkpoint")


@dataclass(frozen=True)
class Round:
    """What was agreed on."""

    number: int
    steps: dict[int, int]  # by member the steps that it has done

    @property
    def members(self) -> list[int]:
        """The ranks, in order; a member's place in the group is its index here."""
        return sorted(self.steps)

    @property
    def newest(self) -> int:
        """The most steps that a member has done."""
        return max(self.steps.values())

    def sources(self) -> dict[int, int]:
        """For each member that is behind, who gives it weights and moments: those that are ahead, in turns."""
        ahead = [rank for rank in self.members if self.steps[rank] == self.newest]
        behind = [rank for rank in self.members if self.steps[rank] < self.newest]
        return {rank: ahead[number % len(ahead)] for number, rank in enumerate(behind)}


class Rounds:
    """One rank's view of the folder.

    Args:
        folder: one that all ranks see, empty at the start.
        rank: whose view this is.
        seats: how many ranks a group has at most.
    """

    def __init__(self, folder: str | os.PathLike, rank: int, *, seats: int) -> None:
        self.folder, self.rank, self.seats = Path(folder), rank, seats
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mine: IO = open(self._file("alive", rank), "w", encoding="utf-8")  # noqa: SIM115 (held until the end)
        fcntl.flock(self._mine, fcntl.LOCK_EX)
        self._write(f"here-{rank}", "")

    def alive(self, rank: int) -> bool:
        """Whether the rank lives; one that has not come yet does not."""
        if rank == self.rank:
            return True
        try:
            with open(self._file("alive", rank), encoding="utf-8") as theirs:
                fcntl.flock(theirs, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def begin(self) -> None:
        """Waits until all the first members have come: before that, a rank without a lock is late and not dead."""
        while not all(self._file("here", rank).exists() for rank in range(self.seats)):
            time.sleep(POLL_S)

    def join(self, number: int, steps: int, before: Collection[int]) -> Round:
        """Takes part in a round, and returns what was agreed on.

        Args:
            number: of the round; the last one's and 1.
            steps: how many steps this rank has done.
            before: the members of the last round.
        """
        self._write(f"join-{number}-{self.rank}", str(steps))
        while (agreed := self.read(number)) is None:
            joined = {rank: self._steps(number, rank) for rank in before}
            if all(steps is not None or not self.alive(rank) for rank, steps in joined.items()):
                self._propose(number, {rank: steps for rank, steps in joined.items() if steps is not None})
            else:
                time.sleep(POLL_S)
        return agreed

    def wait(self) -> Round | None:
        """As a spare: waits for a place; returns the round that has one, or None once the training is over.

        Raises:
            NoReplica: the members of the last round have died.
        """
        self._write(f"spare-{self.rank}", "")
        while True:
            rounds = [agreed for number in self._numbers() if (agreed := self.read(number))]
            if rounds and self.rank in rounds[-1].steps:
                return rounds[-1]
            left = not rounds or any(self.alive(rank) for rank in rounds[-1].members)
            if (self.folder / "over").exists():
                return None
            if not left and len(self._numbers()) == len(rounds):
                raise NoReplica
            time.sleep(POLL_S)

    def spares(self) -> list[int]:
        """Who waits for a place and lives."""
        ranks = sorted(int(file.name.split("-")[1]) for file in self.folder.glob("spare-*"))
        return [rank for rank in ranks if self.alive(rank)]

    def read(self, number: int) -> Round | None:
        """What was agreed on in a round; None before."""
        file = self._file("round", number)
        if not file.exists():
            return None
        return Round(number, {int(rank): steps for rank, steps in json.loads(file.read_text(encoding="utf-8")).items()})

    def leave(self) -> None:
        """Ends this rank's part: the training is over, and nobody has to wait for it."""
        self._write("over", "")
        self.die()

    def die(self) -> None:
        """Gives the lock back, as the operating system does for a process that is killed."""
        self._mine.close()

    def _propose(self, number: int, steps: dict[int, int]) -> None:
        taken = {rank for other in self._numbers() if (agreed := self.read(other)) for rank in agreed.steps}
        free = [rank for rank in self.spares() if rank not in taken]
        places = dict.fromkeys(free[: self.seats - len(steps)], NOTHING)
        aside = self.folder / f"proposal-{number}-{self.rank}"
        aside.write_text(json.dumps(steps | places), encoding="utf-8")
        with contextlib.suppress(FileExistsError):  # another rank was first
            os.link(aside, self._file("round", number))
        aside.unlink()

    def _numbers(self) -> list[int]:
        return sorted(int(file.name.split("-")[1]) for file in self.folder.glob("round-*"))

    def _steps(self, number: int, rank: int) -> int | None:
        file = self.folder / f"join-{number}-{rank}"
        return int(file.read_text(encoding="utf-8")) if file.exists() and self.alive(rank) else None

    def _file(self, what: str, number: int) -> Path:
        return self.folder / f"{what}-{number}"

    def _write(self, name: str, text: str) -> None:
        """Writes a file aside and renames it, so that nobody reads half of it."""
        aside = self.folder / f".{name}.{self.rank}"
        aside.write_text(text, encoding="utf-8")
        aside.rename(self.folder / name)
