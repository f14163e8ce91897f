"""The lab process group: the one door through which every byte of every rank passes.

It wraps gloo or NCCL and hands each operation on unchanged. Because it is registered as a backend of
`torch.distributed`, PyTorch's own DDP, FSDP2, tensor parallel and pipelining pass through it as well, and so do
sub-groups and device meshes.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab import compat
from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.rank import gpu, stage
from parallel_lab.runtime.rank.calls import DROPPED, ISSUED, Call, CallLog, learner_line, name_of
from parallel_lab.runtime.rank.emulate import Emulators, LateFuture
from parallel_lab.runtime.rank.faults import Injector
from parallel_lab.runtime.rank.waiting import Liveness
from parallel_lab.runtime.rank.work import CollectiveWork, MessageWork, future_of
from parallel_lab.trace.record import recorder

# Method of ProcessGroup -> the name in a trace. Several methods are one operation on differently packed tensors.
COLLECTIVES = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "barrier": "barrier",
    "alltoall": "all_to_all",
    "all_to_all_single": "all_to_all",
    "allgather": "all_gather",
    "all_gather_single": "all_gather",
    "all_gather_single_coalesced": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "reduce_scatter_single": "reduce_scatter",
    "reduce_scatter_single_coalesced": "reduce_scatter",
}


@dataclass
class Door:
    """What this process knows beside its process groups; `launch` sets it, torchrun leaves the defaults.

    gloo listens on `host`, or on the address that other hosts reach. `launch` says 127.0.0.1: gloo in the wheels has no
    TLS, so nothing may leave the machine.
    """

    backend: str = "gloo"  # or `nccl`: what carries the bytes
    host: str | None = None
    calls: CallLog = field(default_factory=CallLog)
    injector: Injector = field(default_factory=lambda: Injector(-1, ()))
    emulator: Emulators | None = None
    liveness: Liveness = field(default_factory=Liveness)


door = Door()


def _nothing() -> None:
    return None


def _to_itself(kind: str, rank: int, ranks: int) -> str:
    """What is wrong when a rank is the other side of its own message."""
    does, way, side = ("sends", "to", "dst") if kind == "send" else ("receives", "from", "src")
    if ranks == 1:
        return f"rank {rank} {does} {way} itself, for it is the only rank: how many messages are due, if n is 1?"
    why = f"a message needs two ranks, and {side} is this rank's own number"
    return f"rank {rank} {does} {way} itself: {why}. Copy the tensor, or look at how {side} is computed"


def _to_nobody(kind: str, other: int, ranks: int) -> str:
    """What is wrong when the other side of a message is no rank of the group."""
    way = "send to" if kind == "send" else "receive from"
    return f"there is no rank {other} to {way}: the ranks are 0 to {ranks - 1}. A ring closes by % {ranks}"


class LabGroup(dist.ProcessGroup):
    """A process group that records what it hands on to `inner`, the group that moves the bytes.

    `ranks` are the global ranks of the members, in group order. `label` is unique among the groups of this process;
    empty for the default group. `axis` is that of the mesh. Over `headers` go those of an emulated link.
    """

    def __init__(self, inner: dist.ProcessGroup, rank: int, ranks: list[int], label: str, headers: Any = None) -> None:
        super().__init__(rank, len(ranks))  # pyright: ignore[reportCallIssue] (the stubs miss this constructor)
        self.inner, self.ranks, self.label, self.headers = inner, tuple(ranks), label, headers
        self._name = label
        self._set_group_desc("undefined")

    # torch numbers the group after it is made, and compiled code looks it up by that name.
    def _set_group_name(self, name: str) -> None:
        self._name = name
        self.inner._set_group_name(name)  # pyright: ignore[reportArgumentType] (a NewType of str)

    # Device meshes describe theirs as `mesh_dp`; `dist.new_group(group_desc="tp")` gives a name to any group.
    def _set_group_desc(self, desc: str) -> None:
        name = self.label if desc == "undefined" else desc.removeprefix("mesh_")
        self.inner._set_group_desc(desc)
        self.axis = re.sub(r"\W+", "_", name) if self.label and desc not in ("default_pg", "mesh_default") else ""

    @property
    def group_name(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (a NewType of str)
        """The name under which torch knows this group."""
        return self._name

    def getBackendName(self) -> str:
        """`lab`."""
        return "lab"

    def send(self, tensors, dstRank: int, tag: int) -> dist.Work:
        """Sends `tensors[0]` to the member `dstRank`."""
        return self._message("send", tensors, dstRank, tag)

    def recv(self, tensors, srcRank: int, tag: int) -> dist.Work:
        """Receives into `tensors[0]` from the member `srcRank`."""
        return self._message("recv", tensors, srcRank, tag)

    def recv_anysource(self, tensors, tag: int) -> dist.Work:
        """Receives into `tensors[0]` from whoever sends first."""
        return self._message("recv", tensors, None, tag)

    def _message(self, kind: str, tensors, other: int | None, tag: int) -> dist.Work:
        if other is not None and other == self.rank():
            raise ValueError(_to_itself(kind, self.ranks[other], self.size()))
        if other is not None and not 0 <= other < self.size():
            raise ValueError(_to_nobody(kind, other, self.size()))
        size, peer = tensors[0].nbytes, -1 if other is None else self.ranks[other]
        sent = {"sent_bytes": size, "sent_messages": 1} if kind == "send" else {}
        dropped = door.injector.apply(kind)
        _, (staged, *_), back = self._staged(kind, kind, (tensors,))
        facts = (size, peer, tag, name_of(tensors[0].dtype), DROPPED if dropped else ISSUED)
        asked_s, call, index = self._begin(kind, facts, peer=peer, lane=kind, **sent)
        if dropped:
            return compat.done_work(tensors)
        if other is not None:
            due = self._due(kind, asked_s, size, other, tag)
            work = getattr(self.inner, kind)(staged, other, tag)
            return MessageWork(work, call, recorder(), index, back, due, door.liveness)
        work = self.inner.recv_anysource(staged, tag)

        def due_from_whom_it_came() -> float:
            source = work._source_rank()
            recorder().came_from(index, self.ranks[source])
            return self._due(kind, asked_s, size, source, tag)()

        return MessageWork(work, call, recorder(), index, back, due_from_whom_it_came, door.liveness)

    def _due(self, kind: str, asked_s: float, size: int, other: int, tag: int) -> Callable[[], float]:
        """What says, once a message is here, when an emulated link would have delivered it."""
        if not door.emulator:
            return float
        emulator = door.emulator.among((self.ranks[self.rank()], self.ranks[other]))
        if kind == "send":
            return emulator.send(self.headers, asked_s, size, other, tag)
        return emulator.receive(self.headers, size, other, tag)

    def all_gather_by(self, start: Callable[[], dist.Work], flat: torch.Tensor, shard: torch.Tensor) -> dist.Work:
        """An all-gather of `shard` into `flat` that `start` carries out in its own way, see `runtime/gather.py`."""
        return self._collective("all_gather_single", (flat, shard), {}, start)

    def _collective(
        self, method: str, arguments: tuple, options: dict, own_way: Callable[[], dist.Work] | None = None
    ) -> dist.Work:
        kind, ranks = COLLECTIVES[method], self.size()
        size = stage.payload_bytes(kind, arguments, ranks)
        settings: Any = next(iter(options.values()), arguments[-1] if arguments else None)
        root: int = settings.rootRank if kind in stage.ROOTED else -1
        place = (self.rank() - root) % ranks if root >= 0 else self.rank()
        cost, *others = stage.charges(kind, arguments, ranks, size, place)
        sent = {"sent_bytes": cost.sent_bytes, "sent_messages": cost.sent_messages}
        if hasattr(settings, "asyncOp"):
            settings.asyncOp = True  # or NCCL gives no handle; torch waits for ours where the caller does not
        outputs = stage.flatten(arguments[:1])
        tensors = stage.flatten(arguments)
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        dtype = name_of(tensors[0].dtype) if tensors else ""
        dropped = door.injector.apply(kind)
        method, arguments, back = self._staged(kind, method, arguments)
        if on_gpu and door.emulator:
            torch.cuda.current_stream().synchronize()  # the link begins when the tensors are there
        facts = (size, self.ranks[root] if root >= 0 else -1, 0, dtype, DROPPED if dropped else ISSUED)
        asked_s, call, index = self._begin(kind, facts, lane="send", **sent)
        if dropped:
            return compat.done_work(outputs)

        late, emulator = None, door.emulator and door.emulator.among(self.ranks)
        if emulator:
            late = LateFuture(self.inner, asked_s, max(each.seconds(emulator.link) for each in (cost, *others)))
        work = own_way() if own_way else getattr(self.inner, method)(*arguments, **options)
        over = future_of(work, on_nccl=on_gpu and door.backend == "nccl")
        if emulator and late:
            over = emulator.hold_back(late, over)
        return CollectiveWork(work, call, recorder(), index, over, back, None if back is _nothing else outputs)

    def _begin(self, kind: str, facts: tuple[int, int, int, str, str], **fields) -> tuple[float, Call, int]:
        """Writes down that this rank asked for an operation; returns when, before that took its own time.

        The facts are the size in bytes, the rank at the other side, the tag, the dtype and the state.
        """
        asked_s = time.monotonic()
        line = learner_line()
        size, other, tag, dtype, state = facts
        call = door.calls.begin(kind, self.label, self.ranks, size, other, line, tag, dtype, state)
        keeper = recorder()
        start_s = asked_s - keeper.began_s
        names = {"group": self.label, "axis": self.axis, "line": line}
        return asked_s, call, keeper.issue(kind, start_s=start_s, bytes=size, **names, **fields)

    def _staged(self, kind: str, method: str, arguments: tuple) -> tuple[str, tuple, Callable[[], None]]:
        """The method and arguments that the backend can carry out, and what to do with the result."""
        back = _nothing
        if method == "alltoall" and door.backend == "gloo":
            method = compat.method_of_group("all_to_all_single")
            arguments, back = stage.to_one_tensor(arguments)
        if not stage.needed(method, door.backend, stage.flatten(arguments)):
            return method, arguments, back
        arguments, to_device = stage.to_host(kind, arguments)
        return method, arguments, lambda: (to_device(), back())[1]


def _add_collective(name: str, method: str) -> None:
    def call(self, *arguments, **options):
        return self._collective(method, arguments, options)

    call.__doc__ = f"`{COLLECTIVES[method]}`, handed on to the inner group."
    setattr(LabGroup, name, call)


for _name in COLLECTIVES:
    _add_collective(_name, _name)
for _old, _new in compat.RENAMED.items():
    COLLECTIVES[_old] = COLLECTIVES[_new]
    _add_collective(_old, compat.method_of_group(_new))


def _create(settings, _options) -> LabGroup:
    """What `init_process_group("lab")` and `new_group` call to make a group."""
    rank, ranks = settings.group_rank, settings.global_ranks_in_group or list(range(settings.group_size))
    inner = dist.ProcessGroup(settings.store, rank, len(ranks))
    cpu, cuda, kinds = torch.device("cpu"), torch.device("cuda"), dist.ProcessGroup.BackendType
    gloo = _gloo(settings.store, rank, ranks, settings.timeout, settings.group_id)
    inner._register_backend(cpu, kinds.GLOO, gloo)
    if door.backend == "nccl":
        inner.bound_device_id = rank_device()
        store = compat.PrefixStore("nccl", settings.store)
        inner._register_backend(cuda, kinds.NCCL, gpu.nccl_group(store, rank, ranks, settings.timeout))
    else:
        inner._register_backend(cuda, kinds.GLOO, gloo)
    inner._set_default_backend(kinds.GLOO)
    headers = None
    if door.emulator:
        headers = _gloo(compat.PrefixStore("headers", settings.store), rank, ranks, settings.timeout)
    world = not dist.is_initialized()
    return LabGroup(inner, rank, ranks, "" if world else settings.group_id, headers)


def _gloo(store, rank: int, ranks: list[int], timeout, name: str = "") -> dist.ProcessGroupGloo:
    options = compat.gloo_options(door.host, timeout)
    options.group_name, options.global_ranks_in_group = name, ranks  # the flight recorder tells them
    return dist.ProcessGroupGloo(store, rank, len(ranks), options)


dist.Backend.register_backend("lab", _create, extended_api=True, devices=["cpu", "cuda"])
