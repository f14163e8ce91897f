"""What travels between the kernel and its ranks: values as pickles, and messages on a socket.

A pickle carries functions and classes of a notebook by value, with the file and line of their code. Of a slice of a
tensor it carries the slice's own elements and not the whole storage. A tensor on a GPU arrives on the CPU, so that
whoever reads it needs no GPU.
"""

import io
import pickle
import socket
import struct
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import cloudpickle
import torch
from torch import Tensor

_LENGTH = struct.Struct("!Q")
PIECE_BYTES = 1 << 20  # read at once


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CodeType):  # cloudpickle 3.1.3 leaves out where code stands, which every report names
            make, arguments, *_ = self.dispatch_table[CodeType](obj)
            return _code, (obj.co_filename, make, arguments)
        if type(obj) in (Tensor, torch.nn.Parameter) and (obj.is_cuda or _is_slice(obj)):
            return _alone(obj).__reduce_ex__(cloudpickle.DEFAULT_PROTOCOL)
        return super().reducer_override(obj)


def _code(file: str, make: Callable[..., CodeType], arguments: tuple) -> CodeType:
    return make(*arguments).replace(co_filename=file)


def _is_slice(tensor: Tensor) -> bool:
    """Whether the tensor has much less than its storage holds."""
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.untyped_storage().nbytes() > tensor.nbytes


def _alone(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, with a storage of its own."""
    copy = tensor.detach().clone().cpu()
    copy = torch.nn.Parameter(copy) if isinstance(tensor, torch.nn.Parameter) else copy
    vars(copy.requires_grad_(tensor.requires_grad)).update(vars(tensor))
    return copy


def dumps(value: Any) -> bytes:
    """The value as a pickle."""
    with io.BytesIO() as file:
        _Pickler(file, cloudpickle.DEFAULT_PROTOCOL).dump(value)
        return file.getvalue()


def send(sock: socket.socket, message: Any) -> None:
    """Sends one picklable message; blocks until it is handed to the operating system."""
    body = pickle.dumps(message)
    sock.sendall(_LENGTH.pack(len(body)) + body)


class Reader:
    """Cuts what arrives on a socket, in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Takes `data` and yields each message that it completes."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._data)
            end = _LENGTH.size + size
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield pickle.loads(body)


def messages(sock: socket.socket) -> Iterator[Any]:
    """What arrives on a socket until the other side closes it."""
    reader = Reader()
    while data := sock.recv(PIECE_BYTES):
        yield from reader.feed(data)
