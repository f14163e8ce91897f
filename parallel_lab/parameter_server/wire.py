"""What workers and servers say to each other: a header of a few numbers, and a stretch of the vector.

A worker asks and a server answers, always one particular worker and one particular server (`recv` from any source
would not wait for an emulated link). A push is a header and a gradient; a pull is a header, answered with a version and
the parameters. Message sizes are known beforehand on both sides.

A server has one thread for each worker, and each waits for its own. A connection that breaks raises `Lost`.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.trace import tag

PULL, PUSH, DONE, BYE = range(4)
VERSION_BYTES = 8  # ahead of the parameters, in the same message: two numbers of 4 bytes
_TAG = 1 << 22  # clear of the tags of collectives and of the headers of emulated links


class Lost(Exception):
    """The other side's connection is broken: it has died."""


class Header(NamedTuple):
    """A request.

    Attributes:
        what: PULL (send me the parameters), PUSH (a gradient follows), DONE (I have made my last push: send me the
            parameters when all workers have), BYE (I am leaving).
        shard: which shard; -1 for BYE.
        step: the worker's step.
        version: of a push, the version from which the gradient was computed; of others, the last version seen.
        samples: of a push, how many the gradient is the mean over.
        round: how many synchronous pushes the worker has made; of a push, itself among them, or 0 if it is none.
    """

    what: int
    shard: int = -1
    step: int = 0
    version: int = -1
    samples: int = 0
    round: int = 0


HEADER_BYTES = 8 * len(Header._fields)


def send_header(group: dist.ProcessGroup, peer: int, header: Header) -> dist.Work:
    """Starts sending `header` to rank `peer` of the group; `wait_for` the handle. Lost if the connection is broken."""
    return _issue(group.send, torch.tensor(header, dtype=torch.int64), peer, kind="request", mb=header.step)


def receive_header(group: dist.ProcessGroup, peer: int) -> Header:
    """Waits for the next request of rank `peer`; Lost if it dies before."""
    numbers = torch.empty(len(Header._fields), dtype=torch.int64)
    wait_for(_issue(group.recv, numbers, peer, kind="request"))
    return Header(*numbers.tolist())


def send(group: dist.ProcessGroup, tensor: Tensor, peer: int, shard: int, step: int) -> dist.Work:
    """Starts sending `tensor` (contiguous, on the CPU); the caller keeps it unchanged until `wait_for` has returned."""
    return _issue(group.send, tensor, peer, part=shard, mb=step)


def receive(group: dist.ProcessGroup, tensor: Tensor, peer: int, shard: int, step: int) -> dist.Work:
    """Starts receiving into `tensor`; it is whole when `wait_for` has returned."""
    return _issue(group.recv, tensor, peer, part=shard, mb=step)


def wait_for(work: dist.Work) -> None:
    """Waits until the message is delivered; Lost if the other side dies before."""
    try:
        work.wait()
    except RuntimeError as error:
        raise Lost(str(error)) from error


def _issue(call, tensor: Tensor, peer: int, **names) -> dist.Work:
    try:
        with tag(**names):
            return call([tensor], peer, _TAG)
    except RuntimeError as error:
        raise Lost(str(error)) from error


def reply_buffer(elements: int, dtype: torch.dtype) -> Tensor:
    """Room for the answer to a pull, uint8: the version and `Rule.together`, then the parameters."""
    return torch.empty(VERSION_BYTES + elements * dtype.itemsize, dtype=torch.uint8)


def open_reply(reply: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Views of an answer: version and `Rule.together`, int32 (2,), and the parameters, (elements,).

    Server and worker keep the parameters in these views, so that they are sent from where they are and received to
    where they belong.
    """
    return reply[:VERSION_BYTES].view(torch.int32), reply[VERSION_BYTES:].view(dtype)
