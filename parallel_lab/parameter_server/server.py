"""A parameter server: keeps one shard of the parameters, answers pulls, applies pushes.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, section 2.2 and algorithm 1;
Dean et al., "Large scale distributed deep networks", NeurIPS 2012, section 4.1 (Downpour SGD).

Idea: the parameters w live on servers. A worker pulls w, computes the gradient g on its own data and pushes g; the
server updates w. A rule (`rules`) decides which pushes make an update, and which worker may pull.

Sharded over the servers: parameters and optimizer state. Replicated on each worker: parameters and gradients.
Bytes per step, with n workers, s servers and S bytes of parameters: a worker sends S, a server n S / s, and each
message has a header of 32 bytes.
Bytes held: a server holds S / s of parameters, as much for each state of the optimizer, and n S / s of gradients; where
workers do not go in step, also a copy of S / s for each answer under way. A worker holds the model and its gradients.

A server sees its shard alone, and workers speak with servers alone: a worker that dies stops nobody. The optimizer has
to treat each element by itself (SGD, momentum, AdamW): it sees a stretch of one flat vector, and no whole tensors.

`Shard` is the algorithm. `Server` has a thread for each worker, and the threads meet in the shard. The messages and the
plan of a step stand in `wire`, the other side in `worker`.
"""

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import check_rate
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.parameter_server import wire
from parallel_lab.parameter_server.record import Served, Update
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.parameter_server.shards import bounds, flat
from parallel_lab.parameter_server.wire import BYE, DONE, PULL, Header, Line, Message
from parallel_lab.trace import recorder, span


class Shard:
    """One server's stretch w of the parameters, at first `values`; the rule decides what becomes of each push.

    Attributes:
        w: the parameters, (elements,); they lie in the message `answer`, which workers are sent.
        state: what the rule looks at.
        updates: what was pushed, in the order of use.
    """

    def __init__(
        self,
        index: int,
        values: Tensor,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        rule: Rule,
        workers: int,
        on_update: Callable[["Shard"], object] = lambda shard: None,
    ) -> None:
        self.index, self.rule, self.on_update = index, rule, on_update
        self.answer = Message(len(values), values.dtype)
        self.answer.vector.copy_(values)
        self.w = nn.Parameter(self.answer.vector)
        self.optimizer = make_optimizer([self.w])
        self.state = State.of(range(workers))
        self.updates: list[Update] = []
        self._held: dict[int, Message] = {}
        on_update(self)

    def push(self, worker: int, message: Message) -> None:
        """Takes a gradient, which is the shard's own until the worker may pull again, and updates if that is due."""
        read = int(message.header.version)
        self.state.clocks[worker], self.state.read[worker] = int(message.header.step) + 1, read
        if self.rule.admits(self.state, read):
            self.state.held.append(worker)
            self._held[worker] = message
        else:
            self._note(worker, message, dropped=True)
        self._settle()

    def leave(self, worker: int) -> None:
        """Counts `worker` no more, because it is done or dead; a push that it made still counts."""
        self.state.live.discard(worker)
        self._settle()

    def _settle(self) -> None:
        while used := list(self.rule.due(self.state)):
            self.update(used)

    def update(self, workers: list[int]) -> None:
        """One step of the optimizer along g, the mean of these workers' gradients, weighted by their counts."""
        held = [self._held[worker] for worker in sorted(workers)]  # not by arrival: the same sum in every run
        total = sum(message.header.weight for message in held)
        with span("update", part=self.index, mb=self.state.version, phase="step"):
            g = held[0].vector
            if len(held) > 1:
                g.mul_(held[0].header.weight / total if total else 0.0)  # in its own memory: fresh memory is slow
            for message in held[1:]:
                g.add_(message.vector, alpha=message.header.weight / total if total else 0.0)
            self.w.grad = g
            self.optimizer.step()
            self.w.grad = None
        for worker in workers:
            self._note(worker, self._held.pop(worker))
        self.state.updated(workers)
        self.answer.header = Header(version=self.state.version)
        self.on_update(self)

    def _note(self, worker: int, message: Message, dropped: bool = False) -> None:
        step, read, now_s = int(message.header.step), int(message.header.version), recorder().now()
        met = self.state.version
        update = Update(worker, now_s, now_s, read, met + (not dropped), met - read, dropped, step, now_s)
        self.updates.append(update)


class Server:
    """Serves one shard to all workers, which are the ranks of `group` from `first` on.

    Where all go in step, they are answered in the order of `turns`.
    """

    def __init__(self, shard: Shard, group: dist.ProcessGroup, first: int, turns: list[int]) -> None:
        self.shard, self.turns, self.in_step = shard, turns, shard.rule.in_step
        self.lines = {worker: Line(group, first + worker, shard.index) for worker in turns}
        self._pushes = {worker: Message(len(shard.w), shard.w.dtype) for worker in turns}
        self._coming: dict[int, dist.Work] = {}  # the receive of a worker's next push
        self._read = dict.fromkeys(turns, -1)  # the version that each worker was last sent
        self._done: set[int] = set()  # workers that wait for the end
        self._changed = threading.Condition()

    def run(self) -> Served:
        """Serves until every worker is done, has left or has died; raises what went wrong in a thread at once."""
        ended: SimpleQueue[Exception | None] = SimpleQueue()
        for worker in self.turns:
            threading.Thread(target=self._serve, args=(worker, ended), daemon=True, name=f"worker {worker}").start()
        for _ in self.turns:
            if error := ended.get():
                raise error
        sent_bytes = sum(line.sent_bytes for line in self.lines.values())
        return Served(self.shard.updates, self.shard.state.version, self.shard.w.detach(), sent_bytes)

    def _serve(self, worker: int, ended: SimpleQueue) -> None:
        """The thread of one worker: answer, take a push, answer, take a push, until it leaves or dies."""
        error = None
        try:
            with contextlib.suppress(wire.Lost):  # it died: the others go on without it
                while self._answer(worker) and self._take(worker):
                    pass
            self._leave(worker)
        except Exception as wrong:
            error = wrong
        ended.put(error)

    def _answer(self, worker: int) -> bool:
        """Answers the next ask of `worker`; False if no push will follow."""
        line, ask, step = self.lines[worker], Message(), self.shard.state.clocks[worker]
        self._wait_for_turn(worker)
        wire.wait_for(line.receive(ask, step, **wire.ASK))
        self.hear(worker, ask.header)
        if ask.header.what == BYE:
            return False
        if ask.header.what == DONE:
            self._leave(worker, done=True)
        self._wait_for_turn(worker)
        with self._changed:
            version, answer = self.shard.state.version, self.shard.answer
            # Where all go in step, no update can come before the answer has left. Otherwise it must be a copy.
            sent = line.send(answer if self.in_step else answer.copy(), step, **wire.ANSWER)
            if ask.header.what == PULL:
                self._coming[worker] = line.receive(self._pushes[worker], step, **wire.PUSH)
        wire.wait_for(sent)
        with self._changed:
            self._read[worker] = version
            self._done.discard(worker)
            self._changed.notify_all()
        return ask.header.what == PULL

    def _take(self, worker: int) -> bool:
        """Takes the push of `worker`; False if it leaves instead."""
        wire.wait_for(self._coming[worker])
        if self._pushes[worker].header.what == BYE:
            return False
        with self._changed:
            self.shard.push(worker, self._pushes[worker])
            self._changed.notify_all()
        return True

    def hear(self, worker: int, ask: Header) -> None:
        """A seam: called with each ask before it is answered."""

    def may_answer(self, worker: int) -> bool:
        """Whether it is the turn of `worker`: the rule lets it pull, or it is done and so are all others.

        Where all go in step, one is answered after another: they share this server's way out.
        """
        state = self.shard.state
        if worker in self._done:
            return not state.live and worker == next(other for other in self.turns if other in self._done)
        if worker in state.held or not self.shard.rule.may_pull(state, worker):
            return False
        unread = (other for other in self.turns if other in state.live and self._read[other] < state.version)
        return not self.in_step or worker == next(unread, worker)

    def _wait_for_turn(self, worker: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.may_answer(worker))

    def _leave(self, worker: int, done: bool = False) -> None:
        with self._changed:
            self.shard.leave(worker)
            self._done = self._done | {worker} if done else self._done - {worker}
            self._changed.notify_all()


def serve(
    model: nn.Module,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    rule: Rule,
    *,
    servers: int = 1,
    on_update: Callable[[Shard], object] = lambda shard: None,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs: Any,
) -> Served:
    """Serves this rank's shard of `model` until every worker is done, has left or has died.

    The first `servers` ranks of the group call this, the others make a `Worker`. The parameters begin as those of this
    rank's `model`, which is the same on all ranks and stays as it is. `rule` is one of `synchronization`, such as
    `Synchronous()`; `on_update` is called with the `Shard` at the start and after each update. The optimizer is
    `optimizer_class(parameters, **optimizer_kwargs)`.

    Raises:
        TypeError, ValueError: before the first message, if an argument makes no sense or this rank's model differs.
    """
    group = wire.members(group, servers)
    workers, index = group.size() - servers, group.rank()
    if not isinstance(rule, Rule):
        raise TypeError(f"rule={rule!r}: expected a rule, such as Synchronous() or Stale(2)")
    rule.check(workers, servers)
    check_rate(optimizer_kwargs)
    w = flat(model)

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return optimizer_class(parameters, **optimizer_kwargs)

    shard = Shard(index, w[bounds(len(w), servers)[index]], make, rule, workers, on_update)
    check_same_model(model, group, servers=servers)
    return Server(shard, group, servers, wire.answered(index, workers, servers)).run()
