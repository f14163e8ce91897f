"""A worker: pulls the parameters, and pushes the gradients that its own data gave.

Li et al. 2014, section 2.2 (algorithm 1); Dean et al. 2012, section 4.1. What it sends and holds stands in `server`.

When a server dies, the worker turns to the first spare. A push that was under way is then lost, like the updates since
the snapshot: the worker pulls what the spare has and goes on from there.
"""

import contextlib
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.same_model import check_same_model
from parallel_lab.parameter_server import handshake, vector, wire
from parallel_lab.parameter_server.wire import Header, Lost


class Worker:
    """This rank as a worker; the ranks of `group` before `servers` call `serve`.

    Args:
        model: its parameters are overwritten by each pull; `.grad` is what a push sends.
        servers: how many server ranks there are, spares among them. spares: how many of them, the last ones, wait.

    Attributes:
        index, workers: which worker this is, of how many.
        step: pushes made.
        sent_bytes: what left this rank, requests included.

    TypeError or ValueError before the first message, if the counts make no sense or this rank's model differs.
    """

    def __init__(
        self, model: nn.Module, servers: int = 1, spares: int = 0, group: dist.ProcessGroup | None = None
    ) -> None:
        self.group = handshake.members(group, servers, spares)
        self.model, self.layout = model, vector.layout_of(model, servers - spares)
        self.index, self.workers = self.group.rank() - servers, self.group.size() - servers
        self.step, self.sent_bytes = 0, 0
        self._dtype = next(iter(vector.trainable(model).values())).dtype
        self._holders = list(range(servers - spares))  # shard -> the rank that holds it
        self._spares = list(range(servers - spares, servers))
        self._versions = [-1] * self.layout.servers  # shard -> the version read last
        # Each worker begins with another server, so that they do not queue at the first one.
        self._order = [(self.index - k) % self.layout.servers for k in range(self.layout.servers)]
        self._replies = [wire.reply_buffer(cut.stop - cut.start, self._dtype) for cut in self.layout.bounds]
        self._gradients = torch.empty(sum(self.layout.sizes), dtype=self._dtype)  # kept: fresh memory costs page faults
        self._pulled = False
        check_same_model(model, self.group, servers=self.layout.servers)

    def pull(self) -> int:
        """Waits until every server lets this worker read, writes the parameters into the model, returns the version.

        Of several servers it is the oldest version, since each counts its own updates.
        """
        self._ask(wire.PULL)
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
        for shard in self._order:  # one after another: they share this rank's way out, and each arrives the sooner
            if error := _lost(_start(self._start_push, shard, samples)):
                self._turn_to_spare(shard, error)
        self.step, self._pulled = self.step + 1, False

    def finish(self) -> int:
        """Waits until all workers have finished, left or died, takes the final parameters, and leaves the servers.

        Returns the final version.
        """
        self._ask(wire.DONE)
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
        works = [self._request(server, Header(wire.PUSH, shard, self.step, self._versions[shard], samples))]
        if piece.numel():
            works.append(wire.send(self.group, piece, server, shard, self.step))
            self.sent_bytes += piece.nbytes
        return works

    def _start_ask(self, shard: int, what: int) -> list[dist.Work]:
        """Starts a pull, or the wait for the end, at one server."""
        server = self._holders[shard]
        works = [self._request(server, Header(what, shard, self.step, self._versions[shard]))]
        return [*works, wire.receive(self.group, self._replies[shard], server, shard, self.step)]

    def _ask(self, what: int) -> None:
        """Asks every server for its parameters, waits for all, and writes what came into the model."""
        under_way = {shard: _start(self._start_ask, shard, what) for shard in self._order}
        for shard, works in under_way.items():
            while error := _lost(works):
                self._turn_to_spare(shard, error)
                works = _start(self._start_ask, shard, what)
        opened = [wire.open_reply(reply, self._dtype) for reply in self._replies]
        self._versions = [int(version) for version, _ in opened]
        vector.write(self.model, torch.cat([values for _, values in opened]) if len(opened) > 1 else opened[0][1])

    def _turn_to_spare(self, shard: int, error: Lost) -> None:
        """Notes that the holder of a shard is dead, and who holds it from now on."""
        dead = self._holders[shard]
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
