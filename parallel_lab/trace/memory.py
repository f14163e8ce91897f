"""Bytes that are really held: by parameters, gradients, optimizer state, and by what autograd saves for backward.

A tensor is a view of a *storage*, and only storages take memory. So each storage counts once, whole: tied weights
count once, a gradient that is a view of a bucket counts the bucket, and a slice of a big tensor counts all of it, since
the slice keeps it alive. A storage that was emptied (`resize_(0)`), or lies on the meta device, counts nothing.

The kinds are those of Rajbhandari et al. 2020, "ZeRO", section 3: parameters, gradients and optimizer state are the
model states, activations the largest part of the rest.
"""

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from parallel_lab.trace.record import recorder

Key = tuple[torch.device, int]  # a storage: its device and its address there


def storages(tensors: Iterable[Tensor | None]) -> dict[Key, int]:
    """The storages behind `tensors` and their sizes in bytes, each once; None and meta tensors have none.

    A wrapper such as a DTensor counts what it holds on this rank. Sparse tensors raise NotImplementedError.
    """
    found: dict[Key, int] = {}
    for tensor in tensors:
        if tensor is None or tensor.is_meta:
            continue
        flatten = getattr(tensor, "__tensor_flatten__", None)  # what torch asks a wrapper for its inner tensors
        if flatten:
            inner = (getattr(tensor, name) for name in flatten()[0])
            found |= storages(each for each in inner if isinstance(each, Tensor))  # FSDP2's names its mesh as well
            continue
        storage = tensor.untyped_storage()
        if storage.nbytes():
            found[storage.device, storage.data_ptr()] = storage.nbytes()
    return found


def held_bytes(model: nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None) -> dict[str, int]:
    """Bytes held now, as `parameters`, `gradients` and `optimizer_state`; a storage counts in the first kind it is in.

    Parameters that the optimizer has and the model has not, such as master copies in float32, are optimizer state, as
    in ZeRO's section 3.1; without a model they are the parameters. Buffers are left out.
    """
    stepped = [p for group in optimizer.param_groups for p in group["params"]] if optimizer else []
    parameters = list(model.parameters()) if model else stepped
    state = _tensors(optimizer.state.values()) if optimizer else iter(())
    kinds = {
        "parameters": parameters,
        "gradients": (p.grad for p in chain(parameters, stepped)),
        "optimizer_state": chain(stepped, state),
    }
    seen: set[Key] = set()
    held: dict[str, int] = {}
    for kind, tensors in kinds.items():
        fresh = {key: size for key, size in storages(tensors).items() if key not in seen}
        seen |= fresh.keys()
        held[kind] = sum(fresh.values())
    return held


def live_bytes() -> int:
    """Bytes of all tensors that Python can reach, on all devices; garbage is collected first.

    It walks every object of the process: some tenths of a second, for a check and not for a loop. Tensors that
    only autograd holds have no Python object and are not seen; `SavedTensors` counts those.
    """
    gc.collect()
    # type() and not isinstance(): lazy proxies would load what they stand for when asked for their class.
    tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor) and each.layout is torch.strided]
    gradients = [gradient for each in tensors if (gradient := _gradient(each)) is not None]
    return sum(storages(chain(tensors, gradients)).values())


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Measures the activations: what autograd saves inside the `with`, until backward or the end of the graph frees it.

    Each storage counts once and whole, however often it was saved; the parameters of `model` are left out, because they
    are held anyway. Each change is noted in the process's recorder as kind `activations`. Backward may run outside the
    `with`: what it frees is still counted off. Hooks that others set inside, such as those of
    `torch.utils.checkpoint`, take the place of these; of a checkpointed part only its inputs are seen.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__(self._pack, _Saved.unpack)
        self.bytes = 0  # held now
        self.peak_bytes = 0  # the most that was held at once
        self._uses: Counter[Key] = Counter()
        self._skip = storages(model.parameters()) if model else {}
        # CUDA's backward runs on a thread of its own; a collection may free in the midst of a count, hence re-entrant.
        self._lock = threading.RLock()

    def __enter__(self) -> "SavedTensors":  # pyright: ignore[reportIncompatibleMethodOverride]
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> "_Saved":
        sizes = {key: size for key, size in storages([tensor]).items() if key not in self._skip}
        self._count(sizes, +1)
        # Detached: an output that its own node saves would hold that node, and neither would ever be freed.
        return _Saved(tensor.detach(), lambda: self._count(sizes, -1))

    def _count(self, sizes: dict[Key, int], change: int) -> None:
        with self._lock:
            before = self.bytes
            for key, size in sizes.items():
                used = key in self._uses
                self._uses[key] += change
                if not self._uses[key]:
                    del self._uses[key]
                self.bytes += size * ((key in self._uses) - used)
            self.peak_bytes = max(self.peak_bytes, self.bytes)
            if self.bytes != before:
                recorder().sample(self.bytes, "activations")


class _Saved:
    """One saved tensor; autograd owns it, and its end is the moment the tensor is freed."""

    def __init__(self, tensor: Tensor, freed: Callable[[], None]) -> None:
        self.tensor = tensor
        self.freed = freed
        self.version = tensor._version

    def unpack(self) -> Tensor:
        # Autograd leaves this check out where hooks are set; a measurement must not hide a wrong gradient.
        if self.tensor._version != self.version:
            raise RuntimeError(f"a tensor {tuple(self.tensor.shape)} saved for backward was modified in place since")
        return self.tensor

    def __del__(self) -> None:
        self.freed()


def sample(model: nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None) -> dict[str, int]:
    """Notes `held_bytes` of each kind in the process's recorder, now, and returns them."""
    held = held_bytes(model, optimizer)
    for kind, size in held.items():
        recorder().sample(size, kind)
    return held


@contextmanager
def track(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[SavedTensors]:
    """Records memory over time inside the `with`, so that `trace.peak_bytes(rank)` and the memory view have data.

    Model states are sampled at both ends, whenever a gradient is complete, and around each `optimizer.step()`;
    activations at each change. What appears and is gone between two samples is not seen: call `sample` there.
    """

    def now(*_) -> None:
        sample(model, optimizer)

    handles = [p.register_post_accumulate_grad_hook(now) for p in model.parameters() if p.requires_grad]
    if optimizer:
        handles += [optimizer.register_step_pre_hook(now), optimizer.register_step_post_hook(now)]
    now()
    try:
        with SavedTensors(model) as saved:
            yield saved
    finally:
        for handle in handles:
            handle.remove()
        now()


def _tensors(values: Iterable) -> Iterator[Tensor]:
    """The tensors in an optimizer's state, however deep."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _gradient(tensor: Tensor) -> Tensor | None:
    try:
        return tensor.grad if tensor.is_leaf else None
    except RuntimeError:  # a view made without autograd of what was changed with it: torch answers nothing of it
        return None
