"""Where versions of torch, 2.11 and later, differ, and what torch has no public name for: all of it stands here."""

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore as HashStore
from torch._C._distributed_c10d import Store as Store
from torch._C._distributed_c10d import TCPStore as TCPStore
from torch.autograd import Variable
from torch.distributed import distributed_c10d
from torch.futures import Future
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_unflatten as tree_unflatten

# Methods of ProcessGroup that torch 2.13 renamed. 2.11 knows the old names alone, and C++ still calls them.
RENAMED = {
    "alltoall_base": "all_to_all_single",
    "_allgather_base": "all_gather_single",
    "allgather_into_tensor_coalesced": "all_gather_single_coalesced",
    "_reduce_scatter_base": "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced": "reduce_scatter_single_coalesced",
}
all_gather_single: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter_single: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

GlooOptions: Any = dist.ProcessGroupGloo._Options  # pyright: ignore[reportAttributeAccessIssue] (not in the stubs)
PrefixStore, FileStore = dist.PrefixStore, dist.FileStore  # pyright: ignore[reportPrivateImportUsage]
# Called with False: the pair of hooks that would see what autograd saves now; None if there is none.
saved_tensors_hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks  # pyright: ignore[reportAttributeAccessIssue]


def method_of_group(name: str) -> str:
    """The name under which this torch's ProcessGroup has the method that is now called `name`."""
    old = {new: old for old, new in RENAMED.items()}
    return name if hasattr(dist.ProcessGroup, name) else old[name]


def allow_old_names() -> None:
    """Keeps torch 2.13 from warning of the names that 2.11 knows alone: both are supported."""
    warnings.filterwarnings("ignore", message=r"`torch.distributed.\w+` is deprecated", category=FutureWarning)


def let_the_group_refuse_oneself() -> None:
    """Leaves it to the process group to say that a rank sends to itself: torch says so without naming the rank."""
    distributed_c10d._check_not_self_rank = lambda *_: None


def when_cuda_begins(call: Callable[[], None]) -> None:
    """Has `call` called when this process first uses a GPU; at once if it has done so."""
    torch.cuda._lazy_call(call)


def backward_pass() -> int:
    """Autograd's number of the backward pass that runs on this thread; -1 if none does."""
    return torch._C._current_graph_task_id()


def at_end_of_backward(callback: Callable[[], None], asked: int = -1) -> int:
    """Has `callback` called when the backward pass that runs on this thread is over; returns autograd's number of it.

    Given as `asked` the next time, that number keeps the callback from being called twice.
    """
    number = backward_pass()
    if number != asked:
        Variable._execution_engine.queue_callback(callback)  # pyright: ignore[reportAttributeAccessIssue] (no stub)
    return number


def holders(tensor: Tensor) -> int:
    """How many tensors share the memory of `tensor`."""
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)  # pyright: ignore[reportAttributeAccessIssue]


def flight_record() -> bytes:
    """What PyTorch's flight recorder of this process has kept, as its dumps are: a pickled dict."""
    c10d: Any = torch._C._distributed_c10d  # pyright: ignore[reportAttributeAccessIssue]
    return c10d._dump_fr_trace()


def done_work(tensors: list[Tensor]) -> dist.Work:
    """The handle of an operation that was complete from the start."""
    future: Future = Future()
    future.set_result(tensors)
    return work_of(future)


def work_of(future: Future) -> dist.Work:
    """The handle of an operation that is over when `future` is."""
    return torch._C._distributed_c10d._create_work_from_future(future)  # pyright: ignore[reportAttributeAccessIssue]


def gloo_options(host: str | None, timeout: timedelta) -> Any:
    """The options of a group of gloo that listens on the address `host`, or where gloo chooses to."""
    options, gloo = GlooOptions(), dist.ProcessGroupGloo
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=host) if host else gloo.create_default_device()]
    return options


def keys_of(store: TCPStore) -> list[str]:
    """The keys of a store, where this torch lists them; none where it does not."""
    return sorted(store.list_keys()) if hasattr(store, "list_keys") else []  # pyright: ignore[reportAttributeAccessIssue]


def named_group(ranks: list[int], name: str, timeout: timedelta) -> dist.ProcessGroup:
    """A group that its members alone make, under a name that they agree on; `new_group` derives it from the ranks.

    After a failure the same ranks may need a second group, and under the old name they would find the addresses of the
    first.
    """
    world = distributed_c10d._world
    backend, store = world.pg_map[distributed_c10d._get_default_group()]
    helper: Any = distributed_c10d._new_process_group_helper
    group, _ = helper(len(ranks), ranks.index(dist.get_rank()), ranks, backend, store, name, timeout=timeout)
    world.pg_group_ranks[group] = {rank: place for place, rank in enumerate(ranks)}
    return group
