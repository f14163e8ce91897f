"""The parameters of a shard in the message in which they leave: what is sent is sent from where it is, not copied.

An update must not alter what is on its way. One that finds an answer under way moves the parameters first (copy on
write). Under a synchronous rule there is none: before an update each worker has read, since it has pushed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallel_lab.parameter_server import wire


@dataclass
class Buffer:
    """A reply (`wire.open_reply`), and how many answers with it are under way."""

    reply: Tensor
    readers: int = 0


class Answers:
    """Keeps the parameters of a shard, (elements,), and lends them out. Callers hold the shard's lock.

    Attributes:
        parameter: always the newest; its memory may change with each update.
        under_way: how many answers are, of any version.
    """

    def __init__(self, values: Tensor) -> None:
        self._elements, self._dtype = len(values), values.dtype
        self._now = self._empty()
        self._free: list[Buffer] = []  # kept: fresh memory costs page faults
        self.parameter = nn.Parameter(self._values(self._now).copy_(values))
        self.under_way = 0

    def lend(self) -> Buffer:
        """The present parameters; they stay as they are until `give_back`."""
        self._now.readers += 1
        self.under_way += 1
        return self._now

    def give_back(self, buffer: Buffer) -> None:
        """An answer has left."""
        buffer.readers -= 1
        self.under_way -= 1
        if buffer is not self._now and not buffer.readers:
            self._free.append(buffer)

    def open(self) -> None:
        """To be called before the parameters change: moves them if an answer with them is under way."""
        if self._now.readers:
            fresh = self._free.pop() if self._free else self._empty()
            self.parameter.data = self._values(fresh).copy_(self.parameter.detach())
            self._now = fresh

    def close(self, version: int, together: bool) -> None:
        """To be called after they have changed: their version, and whether it is for a synchronous push."""
        wire.open_reply(self._now.reply, self._dtype)[0].copy_(torch.tensor([version, together]))

    def _empty(self) -> Buffer:
        return Buffer(wire.reply_buffer(self._elements, self._dtype))

    def _values(self, buffer: Buffer) -> Tensor:
        return wire.open_reply(buffer.reply, self._dtype)[1]
