"""Recovery by the step: a rank dies, and the others go on without a restart.

In data parallelism every rank has all weights and moments, so a death loses no state, only a share of one step. torchft
(Meta 2025) recovers so; ours is its idea at its smallest.

1. The survivors notice: their all-reduce fails. Each drops its broken group, whose connections close, so that those who
   wait for somebody that has left fail as well.
2. They agree on a new group (`rounds.py`): the survivors, and a spare for each free place. They say how far they are.
   A death in the middle of an all-reduce may leave some with its result and others without.
3. Who is behind gets weights and moments from a member that is ahead. A newcomer is behind by everything; a survivor
   without the last step's result is behind by one. Both are healed in the same way.
4. The step goes on: its global batch is cut anew over the members. Nothing is lost but what was computed of this step.

A newcomer that comes later is let in between two steps: one element of the all-reduce says that somebody waits.

With a spare in time the group has its old size, and the same samples are added up in the same order, so the run ends
with the weights of an undisturbed one, bit by bit. With a smaller group it ends with them to rounding. When every rank
that has weights is dead, nothing is left to copy from: then it takes a checkpoint, and `restart.py`.

Sent for each newcomer: weights and the two moments of Adam, 12 bytes a parameter in float32.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from parallel_lab.compat import named_group
from parallel_lab.systems.resilience.goodput import note
from parallel_lab.systems.resilience.job import SAMPLES, contribution, network, take_gradients
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.rounds import NOTHING, NoReplica, Round, Rounds

FRUITLESS = 20  # groups in a row that did not bring one step


class _Broken(Exception):
    """A member has died, or has left for the next round."""


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """What goes wrong in here is the group's fault; what goes wrong elsewhere is the program's, and is raised."""
    try:
        yield
    except RuntimeError as error:
        raise _Broken from error


@dataclass
class Survived:
    """What a rank returns."""

    weights: Tensor  # all parameters in one vector; none on a spare that was not needed
    losses: dict[int, float] = field(default_factory=dict)  # by step, of the steps that this rank took part in
    rounds: list[Round] = field(default_factory=list)  # the groups that it was in
    healed: list[tuple[int, int]] = field(default_factory=list)  # step and source, each time it got weights
    state: Tensor | None = None  # weights and moments at the end
    joined_with: Tensor | None = None  # those that a newcomer got


@dataclass
class Replica:
    """One rank's part. Called on each rank of a launch, which must let its ranks die: `launch(..., may_fail=...)`.

    Attributes:
        where: An empty folder for the agreement.
        seats: How many ranks train; the ranks from there on are spares.
        steps: When the training has finished.
        batch: Samples of a step, of all members together.
        seed: Of the weights and of the order.
        log: A file for `goodput`, written by whoever is first in the group.
        prepare: What a cold spare does once it has a place; a warm one, without it, has its model ready while it waits.
        patience_s: How long a group may take to form, or a collective to end, before it is given up for a new group.
        hook: Called with `begin` and `reduced`, and the step.
    """

    where: str | os.PathLike
    seats: int = 4
    steps: int = 12
    batch: int = 48
    seed: int = 0
    log: str = ""
    prepare: Callable[[], None] | None = None
    patience_s: float = 30.0
    hook: Callable[[str, int], None] | None = None

    def __call__(self) -> Survived:
        """Trains to the end, whoever dies on the way."""
        self.rounds = Rounds(self.where, dist.get_rank(), seats=self.seats)
        self.order, self.done = Order(SAMPLES, self.seed), NOTHING
        self.group: Any = None
        self.fruitless, self.closed = 0, False
        self.found = Survived(torch.empty(0))
        if not self._take_a_seat():
            return self.found
        while not self.closed:
            try:
                if self.group is None:
                    self._regroup()
                self._step() if self.done < self.steps else self._close()
            except _Broken as broken:
                self._leave()
                self.fruitless += 1
                if self.fruitless > FRUITLESS:
                    raise broken.__cause__ or broken from None
        self.rounds.leave()
        self.found.state = state_of(self.net, self.optimizer)
        self.found.weights = parameters_to_vector(self.net.parameters()).detach()
        return self.found

    def _take_a_seat(self) -> bool:
        """Begins with the model, or waits as a spare; False where the spare was not needed."""
        self.round: Round | None = None
        if dist.get_rank() < self.seats:
            self._build()
            self.done = 0
            self.rounds.begin()
            note(self.log if dist.get_rank() == 0 else "", "ready", 0)
            return True
        if self.prepare is None:
            self._build()
        self.round = self.rounds.wait()
        if self.round is None:
            return False
        if self.prepare is not None:
            self.prepare()
            self._build()
        return True

    def _build(self) -> None:
        self.net = network(self.seed)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=3e-3)

    def _regroup(self) -> None:
        """Agrees on the next group, makes it, and heals who is behind."""
        called = self.round is not None and not self.found.rounds  # a spare has its round already
        if not called:
            number, before = (self.round.number + 1, self.round.members) if self.round else (0, range(self.seats))
            self.round = self.rounds.join(number, self.done, before)
        assert self.round
        self.found.rounds.append(self.round)
        if self.round.newest == NOTHING:
            raise NoReplica
        patience = timedelta(seconds=self.patience_s)
        with _talking():
            self.group = named_group(self.round.members, f"round {self.round.number}", patience)
            for behind, source in self.round.sources().items():
                self._heal(behind, source)

    def _heal(self, behind: int, source: int) -> None:
        """Rank `behind` gets weights and moments, and the number of steps, of rank `source`."""
        if dist.get_rank() == source:
            state = {"weights": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "done": self.done}
            dist.send_object_list([state], behind, group=self.group)
        if dist.get_rank() == behind:
            told: list = [None]
            dist.recv_object_list(told, source, group=self.group)
            self.net.load_state_dict(told[0]["weights"])
            self.optimizer.load_state_dict(told[0]["optimizer"])
            self.done = told[0]["done"]
            self.found.healed.append((self.done, source))
            if self.found.joined_with is None:
                self.found.joined_with = state_of(self.net, self.optimizer)

    def _step(self) -> None:
        """One step of this group: the share of this member, one all-reduce, the update."""
        assert self.round and self.group
        step, members = self.done, self.round.members
        self._tell("begin", step)
        index = members.index(dist.get_rank())
        share = self.order.take(step * self.batch, self.batch, rank=index, ranks=len(members))
        waiting = index == 0 and len(members) < self.seats and bool(self.rounds.spares())
        flat = torch.cat([contribution(self.net, share, self.batch), torch.tensor([float(waiting)])])
        with _talking():
            dist.all_reduce(flat, group=self.group)
            self._tell("reduced", step)
        take_gradients(self.net, flat[:-1])
        self.optimizer.step()
        self.done, self.fruitless = self.done + 1, 0
        self.found.losses[step] = float(flat[-2])
        note(self.log if index == 0 else "", "step", step)
        if flat[-1] > 0 and self.done < self.steps:
            self._leave()

    def _close(self) -> None:
        """Waits for all members: who left after his last step could not help one that has lost it."""
        with _talking():
            dist.barrier(group=self.group)
        self.closed = True

    def _leave(self) -> None:
        """Drops the group and its connections."""
        group, self.group = self.group, None
        if group is not None:
            dist.destroy_process_group(group)

    def _tell(self, what: str, step: int) -> None:
        if self.hook:
            self.hook(what, step)


def state_of(net: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """Weights and moments in one vector."""
    kept = [value.reshape(-1) for p in net.parameters() for value in optimizer.state[p].values()]
    return torch.cat([parameters_to_vector(net.parameters()).detach(), *kept])
