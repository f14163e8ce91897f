"""A parameter server: keeps one shard of the parameters, answers pulls, applies pushes.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, section 2.2 and algorithm 1;
Dean et al., "Large scale distributed deep networks", NeurIPS 2012, section 4.1 (Downpour SGD).

Idea: the parameters w live on servers. A worker pulls w, computes the gradient g on its own data and pushes g; the
server updates w. A rule (`rules`) decides which pushes make an update, and which worker may pull.

Sharded over the servers: parameters and optimizer state. Replicated on each worker: parameters and gradients.
Bytes per step, with n workers, k servers and S bytes of parameters: a worker sends S, a server n S / k, and each
message has a header of 32 bytes.
Bytes held: a server holds S / k of parameters, as much for each state of the optimizer, and n S / k of gradients; where
workers do not go in step, also a copy of S / k for each answer under way. A worker holds the model and its gradients.

A server sees its shard alone, and workers speak with servers alone: a worker that dies stops nobody. The optimizer has
to treat each element by itself (SGD, momentum, AdamW): it sees a stretch of one flat vector, and no whole tensors.

`Shard` is the algorithm. `Server` has a thread for each worker, and the threads meet in the shard.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, as_completed
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from parallel_lab.agree.arguments import check_rate
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.parameter_server import wire
from parallel_lab.parameter_server.rules import Ledger, Rule, Update
from parallel_lab.parameter_server.shards import bounds, flat
from parallel_lab.parameter_server.wire import BYE, DONE, PULL, Header, Line, Message
from parallel_lab.trace import recorder, span

Make = Callable[[list[nn.Parameter]], Optimizer]
Listener = Callable[["Shard"], object]


@dataclass
class Served:
    """What one server did."""

    updates: list[Update]  # the pushes in the order of use; dropped ones when they came
    version: int  # the number of updates of the weights
    parameters: Tensor  # the shard at the end, (elements,)
    sent_bytes: int  # what left this rank

    @property
    def staleness(self) -> list[int]:
        """The staleness of each push that was used, in the order of use."""
        return [update.staleness for update in self.updates if not update.dropped]


class Shard(Ledger):
    """One server's stretch w of the parameters, (elements,); it lies in the message `answer` that workers are sent."""

    def __init__(
        self, index: int, values: Tensor, make: Make, rule: Rule, workers: int, on_update: Listener = lambda shard: None
    ) -> None:
        super().__init__(rule, workers, recorder().now)
        self.index, self.on_update = index, on_update
        self.answer = Message(len(values), values.dtype)
        self.answer.vector.copy_(values)
        self.w = nn.Parameter(self.answer.vector)
        self.optimizer = make([self.w])
        self._messages: dict[int, Message] = {}
        on_update(self)

    def push(self, worker: int, message: Message) -> None:
        """Takes a gradient, which is the shard's own until the worker may pull again, and updates if that is due."""
        self._messages[worker], now_s, header = message, self.now(), message.header
        self.take(Update(worker, now_s, now_s, int(header.version), 0, 0, step=int(header.step), computed_s=now_s))

    def update(self, workers: Collection[int]) -> None:
        """One step of the optimizer along g, the mean of these workers' gradients, weighted by their counts."""
        held = [self._messages[worker] for worker in sorted(workers)]  # not by arrival: the same sum in every run
        with span("update", part=self.index, mb=self.state.version, phase="step"):
            self.w.grad = mean_in_place([(message.vector, message.header.weight) for message in held])
            self.optimizer.step()
            self.w.grad = None
        super().update(workers)
        self.answer.header = Header(version=self.state.version)
        self.on_update(self)


def mean_in_place(gradients: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The mean of gradients (elements,), each with its weight, in the memory of the first: fresh memory is slow."""
    total = sum(weight for _, weight in gradients) or 1.0  # where nothing counts, the mean is 0
    mean, first = gradients[0]
    if len(gradients) > 1:
        mean.mul_(first / total)
    for gradient, weight in gradients[1:]:
        mean.add_(gradient, alpha=weight / total)
    return mean


class Server:
    """Serves one shard to all workers, the ranks of `group` from `first` on; where all go in step, by `turns`."""

    def __init__(self, shard: Shard, group: dist.ProcessGroup, first: int, turns: list[int]) -> None:
        self.shard, self.turns, self.in_step = shard, turns, shard.rule.in_step
        self.lines = {worker: Line(group, first + worker, shard.index) for worker in turns}
        self._pushes = {worker: Message(len(shard.w), shard.w.dtype) for worker in turns}
        self._read = dict.fromkeys(turns, -1)  # the version that each worker was last sent
        self._done: set[int] = set()  # workers that wait for the end
        self._changed = threading.Condition()

    def run(self) -> Served:
        """Serves until every worker is done, has left or has died; raises what went wrong in a thread at once."""
        before = recorder().sent_bytes
        side_by_side([partial(self._serve, worker) for worker in self.turns])
        sent_bytes = recorder().sent_bytes - before
        return Served(self.shard.updates, self.shard.state.version, self.shard.w.detach(), sent_bytes)

    def _serve(self, worker: int) -> None:
        """The thread of one worker: answer, take a push, answer, take a push, until it leaves or dies."""
        push = self._pushes[worker]
        with contextlib.suppress(wire.Lost):  # it died: the others go on without it
            while coming := self._answer(worker):
                wire.wait_for(coming)
                if push.header.what == BYE:
                    break
                with self._changed:
                    self.shard.push(worker, push)
                    self._changed.notify_all()
        self._leave(worker)

    def _answer(self, worker: int) -> dist.Work | None:
        """Answers the next ask of `worker`, and begins to receive the push that follows, if one does."""
        line, ask, step = self.lines[worker], Message(), self.shard.state.clocks[worker]
        self._wait_for_turn(worker)
        wire.wait_for(line.receive(ask, step, **wire.ASK))
        self.hear(worker, ask.header)
        if ask.header.what == BYE:
            return None
        if ask.header.what == DONE:
            self._leave(worker, done=True)
        self._wait_for_turn(worker)
        with self._changed:
            version, answer = self.shard.state.version, self.shard.answer
            # Where all go in step, no update can come before the answer has left. Otherwise it must be a copy.
            sent = line.send(answer if self.in_step else deepcopy(answer), step, **wire.ANSWER)
            pulls = ask.header.what == PULL
            coming = line.receive(self._pushes[worker], step, **wire.PUSH) if pulls else None
        wire.wait_for(sent)
        with self._changed:
            self._read[worker] = version
            self._done.discard(worker)
            self._changed.notify_all()
        return coming

    def hear(self, worker: int, ask: Header) -> None:
        """A seam: called with each ask before it is answered."""

    def may_answer(self, worker: int) -> bool:
        """Whether it is the turn of `worker`: the rule lets it pull, or it is done and so are all others."""
        state = self.shard.state
        if worker in self._done:
            return not state.live and worker == next(other for other in self.turns if other in self._done)
        if worker in state.held or not self.shard.rule.may_pull(state, worker):
            return False
        # Where all go in step, one is answered after another: they share this server's way out.
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


def side_by_side(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the calls return, in their order, each made in a thread of its own; raises the first error at once."""

    def run(call: Callable[[], Any], future: Future) -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    futures = [Future() for _ in calls]
    for each in zip(calls, futures, strict=True):
        threading.Thread(target=run, args=each, daemon=True).start()
    for future in as_completed(futures):
        future.result()
    return [future.result() for future in futures]


def serve(
    model: nn.Module,
    optimizer_class: Callable[..., Optimizer],
    rule: Rule,
    *,
    servers: int = 1,
    on_update: Listener = lambda shard: None,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs: Any,
) -> Served:
    """Serves this rank's shard of `model` until every worker is done, has left or has died.

    The first `servers` ranks of the group call this, the others make a `Worker`. The model is the same on all ranks and
    stays as it is here. `rule` is one of `synchronization`, such as `Synchronous()`; `on_update` is called with the
    `Shard` at the start and after each update.

    Raises:
        TypeError, ValueError: before the first message, if an argument makes no sense or this rank's model differs.
    """
    group = wire.members(group, servers)
    workers, index = group.size() - servers, group.rank()
    if not isinstance(rule, Rule):
        raise TypeError(f"rule={rule!r}: expected a rule, such as Synchronous() or Stale(2)")
    rule.check(workers, servers)
    check_rate(optimizer_kwargs)
    w, make = flat(model), partial(optimizer_class, **optimizer_kwargs)
    shard = Shard(index, w[bounds(len(w), servers)[index]], make, rule, workers, on_update)
    check_same_model(model, group, servers=servers)
    return Server(shard, group, servers, wire.answered(index, workers, servers)).run()
