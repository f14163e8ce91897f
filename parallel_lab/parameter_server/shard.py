"""One server's stretch of the parameters: push, pull, update, behind one lock.

Li et al. 2014, sections 2.2 and 3.4: servers hold the parameters and run the update ("user-defined functions on the
server"), here any optimizer of torch that treats each element alone: SGD, momentum, AdamW. Optimizers that look at a
whole tensor (its norm, its rows) would see another tensor here, since a shard is one flat vector.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from parallel_lab.parameter_server import snapshots
from parallel_lab.parameter_server.answer import Answers
from parallel_lab.parameter_server.record import Push
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.parameter_server.schedule import place
from parallel_lab.parameter_server.sharding import Layout
from parallel_lab.parameter_server.wire import Header
from parallel_lab.trace import recorder, span


class Shard:
    """Parameters, optimizer and the rule's state; methods may be called from several threads.

    Args:
        index: which shard of `layout`.
        values: its parameters, (elements,).
        make: makes the optimizer from a list of one parameter.
        rule: the consistency.
        workers: those that take part.
        folder, every: where to write a snapshot, and after how many updates each; None for never.

    Attributes:
        state: what the rule sees; its version counts the updates.
        pushes, versions: what was pushed, in the order of use, and the version after each update.
        restored, lost: the version of the snapshot that this began from, and how many updates beyond it were lost.
    """

    def __init__(
        self,
        layout: Layout,
        index: int,
        values: Tensor,
        make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        rule: Rule,
        workers: set[int],
        folder: Path | None = None,
        every: int = 10,
    ) -> None:
        self.layout, self.index, self.rule = layout, index, rule
        self.answers = Answers(values)
        self.parameter = self.answers.parameter
        self.optimizer = make([self.parameter])
        self.state = State.of(workers)
        self.answers.close(0, rule.in_step)
        self.pushes: list[Push] = []
        self.versions: list[int] = []
        self.restored, self.lost = 0, 0
        self.folder, self.every = folder, every
        self._gradients: dict[int, tuple[Header, Tensor]] = {}
        self._waiting: dict[int, Callable[[], bool]] = {}  # workers that want to read, and whether they may
        self._changed = threading.Condition()

    def push(self, worker: int, header: Header, gradient: Tensor) -> None:
        """Takes a gradient, (elements,), which is the shard's until the worker's next request.

        Whether it is applied now, later, or never is the rule's affair.
        """
        with self._changed:
            self.state.pushed(worker, header.step + 1, header.version)
            if self.rule.admits(self.state, header.version):
                self.state.held.append(worker)
                self._gradients[worker] = (header, gradient)
            else:
                self.pushes.append(self._noted(worker, header, dropped=True))
            self._settle()

    @contextmanager
    def pull(self, worker: int) -> Iterator[Tensor]:
        """Waits until the rule lets `worker` read; gives the reply (`wire.open_reply`), unchanged until the end."""
        with self._read(worker, lambda: self.rule.may_pull(self.state, worker)) as reply:
            yield reply

    @contextmanager
    def final(self, worker: int) -> Iterator[Tensor]:
        """Waits until no live worker is left, so that no push can come, then as `pull`."""
        with self._read(worker, lambda: not self.state.live) as reply:
            yield reply

    def leave(self, worker: int) -> None:
        """Takes a worker out of the count, because it is done or dead; a push that it made still counts."""
        with self._changed:
            self.state.live.discard(worker)
            self._settle()

    def save(self) -> None:
        """Writes a snapshot to the folder; OSError if it cannot be written."""
        if self.folder:
            state = self.optimizer.state_dict()
            values = self.parameter.detach()
            snapshots.save(self.folder, self.layout, self.index, self.state.version, values, state)

    def restore(self) -> None:
        """Goes back to the last snapshot in the folder; ValueError if there is none or it is of another layout."""
        assert self.folder
        version, values, state = snapshots.load(self.folder, self.layout, self.index)
        with self._changed, torch.no_grad():
            self.answers.open()
            self.state.version = self.restored = version
            self.state.unheard = set(self.state.live)
            self.parameter.copy_(values)
            self.optimizer.load_state_dict(state)
            self.answers.close(version, self.rule.in_step)

    def told(self, worker: int, step: int) -> None:
        """`worker` has made `step` steps, whether or not its last push arrived here."""
        with self._changed:
            self.state.told(worker, step)
            self._settle()

    def seen(self, version: int) -> None:
        """A worker has read `version` from the server before this one: what lies beyond the snapshot is lost."""
        with self._changed:
            self.lost = max(self.lost, version - self.restored)

    @contextmanager
    def _read(self, worker: int, ready: Callable[[], bool]) -> Iterator[Tensor]:
        with self._changed:
            self._waiting[worker] = ready
            self._changed.wait_for(lambda: ready() and self._next() == worker)
            del self._waiting[worker]
            lent = self.answers.lend()
            self._changed.notify_all()
        try:
            yield lent.reply
        finally:
            with self._changed:
                self.answers.give_back(lent)
                self._changed.notify_all()

    def _next(self) -> int | None:
        """Who is answered next, of those who wait and may read: in the order of `schedule.plan`.

        Where all go in step, one is answered after another: they share this server's way out, and who asks meanwhile
        may be first in the order. Otherwise nobody waits, not even for a worker that is slow to receive.
        """
        if self.answers.under_way and self.rule.in_step:
            return None
        able = (worker for worker, ready in self._waiting.items() if ready())
        return min(able, key=lambda worker: place(worker, self.index, self.layout.servers))

    def _settle(self) -> None:
        """Updates while that is due, and wakes those who wait."""
        while due := self.rule.due(self.state):
            self._update(list(due))
        self._changed.notify_all()

    def _update(self, workers: list[int]) -> None:
        """One step of the optimizer on the mean of these workers' gradients, weighted by their samples."""
        held = [self._gradients[worker] for worker in sorted(workers)]  # not by arrival: the same sum in every run
        total = sum(header.samples for header, _ in held)
        with span("update", part=self.index, mb=held[0][0].step):
            self.answers.open()
            mean = held[0][1]
            if len(held) > 1:
                mean.mul_(held[0][0].samples / total)  # in the gradient's own memory: fresh memory costs page faults
            for header, gradient in held[1:]:
                mean.add_(gradient, alpha=header.samples / total)
            self.parameter.grad = mean
            self.optimizer.step()
            self.parameter.grad = None
        self.pushes += [self._noted(worker, self._gradients.pop(worker)[0]) for worker in workers]
        self.state.updated(workers)
        self.answers.close(self.state.version, self.rule.in_step)
        self.versions.append(self.state.version)
        if self.folder and self.state.version % self.every == 0:
            self.save()

    def _noted(self, worker: int, header: Header, dropped: bool = False) -> Push:
        return Push(self.index, worker, header.step, header.version, self.state.version, dropped, recorder().now())
