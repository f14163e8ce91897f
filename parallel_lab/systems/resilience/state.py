"""All that decides the next step of a run: what a resume must bring back to go on bit by bit.

    weights      parameters and buffers
    optimizer    its moments and counts of steps, and its hyperparameters as they are now
    scheduler    where the learning rate is
    scaler       the scale of the loss, and how many good steps it has seen
    position     how many samples were trained on (`order.py`); the same number on all ranks
    torch numpy python cuda    the random generators of this rank: dropout, augmentation, whatever draws a number

The first five are the same on all ranks of a data-parallel run, or cut as the run cuts them. The generators are each
rank's own: rank 0's on all ranks would give them all the masks of rank 0. What has no state is not there: a run without
a scaler has none. `torch.load(weights_only=True)` reads all of it.
"""

import random
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

GENERATORS = "torch", "numpy", "python", "cuda"
PARTS = "weights", "optimizer", "scheduler", "scaler", "position", *GENERATORS


def random_states(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The states of this process's global generators, by library; `cuda` where `device` is one."""
    kind, keys, *rest = np.random.get_state()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }
    if torch.device(device).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
    """Gives the generators back the states that `states` has."""
    if "torch" in states:
        torch.set_rng_state(states["torch"].cpu().clone())
    if "numpy" in states:
        kind, keys, *rest = states["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    if "python" in states:
        version, numbers, gauss = states["python"]
        random.setstate((version, tuple(numbers), gauss))
    if "cuda" in states and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu().clone(), device)


class State:
    """What a run has to save, and how it gets it back.

    Args:
        parts: whatever has `state_dict` and `load_state_dict`, by the names above: model as `weights`, and so on.
        device: where the run computes.

    Raises:
        ValueError: there is a part of another name.
    """

    def __init__(self, parts: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        if unknown := set(parts) - (set(PARTS) - {"position", *GENERATORS}):
            raise ValueError(f"no part of a run is called {sorted(unknown)}: expected some of {PARTS[:4]}")
        self.parts, self.device = parts, device

    def save(self, position: int) -> dict[str, Any]:
        """This rank's state at `position`; its tensors are those of the run, not copied."""
        saved = {name: part.state_dict() for name, part in self.parts.items()}
        return saved | {"position": position} | random_states(self.device)

    def load(self, saved: Mapping[str, Any], *, without: Collection[str] = ()) -> int:
        """Takes over what `save` gave, but the parts in `without`, and returns the position; 0 where it is left out."""
        for name, part in self.parts.items():
            if name not in without:
                part.load_state_dict(saved[name])
        set_random_states({n: saved[n] for n in GENERATORS if n in saved and n not in without}, self.device)
        return 0 if "position" in without else saved["position"]


def bytes_of(saved: Any) -> int:
    """The bytes of all tensors in what was saved, however deep."""
    if isinstance(saved, Tensor):
        return saved.nbytes
    if isinstance(saved, Mapping):
        return sum(map(bytes_of, saved.values()))
    return sum(map(bytes_of, saved)) if isinstance(saved, list | tuple) else 0
