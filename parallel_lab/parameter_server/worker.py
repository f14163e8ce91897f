"""A worker: pulls the parameters, and pushes the gradients that its own data gave.

Li et al. 2014, section 2.2 (algorithm 1); Dean et al. 2012, section 4.1. What it sends and holds stands in `server`.

When a server dies, the worker turns to the first spare. A push that was under way is then lost, like the updates since
the snapshot: the worker pulls what the spare has and goes on from there.
"""

import contextlib
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.same_model import check_same_model
from parallel_lab.parameter_server import handshake, schedule, vector, wire
from parallel_lab.parameter_server.wire import Header, Lost


class Worker:
    """This rank as a worker; the ranks of `group` before `servers` call `serve`.

    Args:
        model: its parameters are overwritten by each pull; `.grad` is what a push sends. On the CPU both become views
            of the messages; gradients that are zeroed (`zero_grad(set_to_none=False)`) and not replaced stay so, and
            need not be copied.
        servers: how many server ranks there are, spares among them. spares: how many of them, the last ones, wait.

    Attributes:
        index, workers: which worker this is, of how many.
        step: pushes made. round: how many of them were synchronous (`consistency`).
        sent_bytes: what left this rank, requests included.

    TypeError or ValueError before the first message, if the counts make no sense or this rank's model differs.
    """

    def __init__(
        self, model: nn.Module, servers: int = 1, spares: int = 0, group: dist.ProcessGroup | None = None
    ) -> None:
        self.group = handshake.members(group, servers, spares)
        self.model, self.layout = model, vector.layout_of(model, servers - spares)
        self.index, self.workers = self.group.rank() - servers, self.group.size() - servers
        self.step, self.round, self.sent_bytes = 0, 0, 0
        self._together = False  # whether pushes are synchronous from now on
        self._bereft = False  # whether a server has died
        self._turning = threading.Lock()
        self._dtype = next(iter(vector.trainable(model).values())).dtype
        self._holders = list(range(servers - spares))  # shard -> the rank that holds it
        self._spares = list(range(servers - spares, servers))
        self._versions = [-1] * self.layout.servers  # shard -> the version read last
        self._order = schedule.asked(self.index, self.layout.servers)
        self._replies = [wire.reply_buffer(cut.stop - cut.start, self._dtype) for cut in self.layout.bounds]
        self._opened = [wire.open_reply(reply, self._dtype) for reply in self._replies]
        self._gradients = torch.empty(sum(self.layout.sizes), dtype=self._dtype)
        self._pulled = False
        check_same_model(model, self.group, servers=self.layout.servers)
        vector.house_gradients(model, self._gradients)
        self._copied = vector.house_parameters(model, self.layout, [values for _, values in self._opened])

    def pull(self) -> int:
        """Waits until every server lets this worker read, writes the parameters into the model, returns the version.

        Of several servers it is the oldest version, since each counts its own updates.
        """
        ahead = self._ahead()
        under_way = {shard: _start(self._start_ask, shard, wire.PULL) for shard in self._order[:ahead]}
        for done, shard in enumerate(self._order):
            self._receive(shard, wire.PULL, under_way[shard])
            for other in self._order[done + ahead : done + ahead + 1]:
                under_way[other] = _start(self._start_ask, other, wire.PULL)
            self._arrived(shard)
        self._pulled = True
        return min(self._versions)

    def push(self, samples: int = 1) -> None:
        """Sends the gradients in `.grad`, a mean over `samples`; returns when they have left this rank.

        ValueError if a gradient is not finite (nothing is sent, and the servers' parameters stay as they are), if
        nothing was pulled since the last push, or if `samples` is below 1.
        """
        if not self._pulled:
            text = "push() without a pull() before it: these gradients may belong to parameters of long ago"
            raise ValueError(f"worker {self.index}: {text}. Pull at the start of each step.")
        if samples < 1:
            raise ValueError(f"worker {self.index}: a gradient over {samples} samples: expected at least 1")
        vector.copy_gradients(self.model, self._gradients)
        self._check_finite()
        self.round += self._together
        for shard in self._order:  # one after another: they share this rank's way out, and each arrives the sooner
            if error := _lost(_start(self._start_push, shard, samples)):
                self._turn_to_spare(shard, error)
        self.step, self._pulled = self.step + 1, False

    def finish(self) -> int:
        """Waits until all workers have finished, left or died, takes the final parameters, and leaves the servers.

        Returns the final version.
        """
        under_way = {shard: _start(self._start_ask, shard, wire.DONE) for shard in self._order}
        # All at the same time: a worker that stood still at one server would not notice that another has died, and its
        # spare, and with it the other workers, would wait to hear of this one.
        with ThreadPoolExecutor(len(under_way), "finish") as pool:
            list(pool.map(lambda shard: self._receive(shard, wire.DONE, under_way[shard]), under_way))
        for shard in under_way:
            self._arrived(shard)
        self.leave()
        return min(self._versions)

    def leave(self) -> None:
        """Leaves the servers at once: they go on without this worker."""
        for server in {*self._holders, *self._spares}:
            with contextlib.suppress(Lost):
                wire.wait_for(self._request(server, Header(wire.BYE, step=self.step)))

    def _request(self, server: int, header: Header) -> dist.Work:
        self.sent_bytes += wire.HEADER_BYTES
        return wire.send_header(self.group, server, header)

    def _start_push(self, shard: int, samples: int) -> list[dist.Work]:
        """Starts a push to one server."""
        piece, server = self._gradients[self.layout.bounds[shard]], self._holders[shard]
        works = [self._request(server, Header(wire.PUSH, shard, self.step, self._versions[shard], samples, self.round))]
        if piece.numel():
            works.append(wire.send(self.group, piece, server, shard, self.step))
            self.sent_bytes += piece.nbytes
        return works

    def _start_ask(self, shard: int, what: int) -> list[dist.Work]:
        """Starts a pull, or the wait for the end, at one server."""
        server = self._holders[shard]
        works = [self._request(server, Header(what, shard, self.step, self._versions[shard], 0, self.round))]
        return [*works, wire.receive(self.group, self._replies[shard], server, shard, self.step)]

    def _receive(self, shard: int, what: int, works: list[dist.Work] | Lost) -> None:
        """Waits for an answer; asks the spare if the server dies before."""
        while error := _lost(works):
            with self._turning:
                self._turn_to_spare(shard, error)
                works = _start(self._start_ask, shard, what)

    def _ahead(self) -> int:
        """How many servers are asked at a time.

        With as many servers as workers or more, one: then no two servers answer the same worker while another waits.
        With fewer, all: each server has its own order (`Shard`), for which it has to know who waits. So it is when a
        server has died, since its spare must hear of everybody.
        """
        return 1 if self.workers <= self.layout.servers and not self._bereft else self.layout.servers

    @torch.no_grad()
    def _arrived(self, shard: int) -> None:
        """Notes what an answer says, and copies what cannot be received to where it belongs."""
        version, together = self._opened[shard][0].tolist()
        self._versions[shard] = version
        self._together |= bool(together) and shard == 0  # the first server says so, for all
        for target, values in self._copied[shard]:
            target.copy_(values)

    def _turn_to_spare(self, shard: int, error: Lost) -> None:
        """Notes that the holder of a shard is dead, and who holds it from now on."""
        dead, self._bereft = self._holders[shard], True
        self._spares = [spare for spare in self._spares if spare != dead]
        if not self._spares:
            text = f"server rank {dead} of the group is gone, and no spare is left to take over shard {shard}"
            why = str(error).split("] ", 1)[-1].split(". ")[0]  # without gloo's source line and advice
            raise RuntimeError(f"worker {self.index}: {text} ({why})") from None
        self._holders[shard] = self._spares[0]

    def _check_finite(self) -> None:
        if math.isfinite(self._gradients.sum()):  # one pass; a sum that is not finite may also be one that overflowed
            return
        wrong = [(n, p.grad) for n, p in vector.trainable(self.model).items() if p.grad is not None]
        for name, gradient in wrong:
            if count := int((~gradient.isfinite()).sum()):
                text = f"{count} of {gradient.numel()} numbers in the gradient of {name} are not finite"
                raise ValueError(
                    f"worker {self.index}, step {self.step}: {text}. Nothing was pushed. "
                    "Look at the inputs, lower the learning rate, or clip the gradient."
                )


def _start(start: Callable[..., list[dist.Work]], *args) -> list[dist.Work] | Lost:
    """The messages that `start` issues, or the error where the connection is broken already."""
    try:
        return start(*args)
    except Lost as error:
        return error


def _lost(works: list[dist.Work] | Lost) -> Lost | None:
    """Waits for messages; None once they are delivered, the error if the other side died."""
    if isinstance(works, Lost):
        return works
    try:
        for work in works:
            wire.wait_for(work)
    except Lost as error:
        return error
    return None
