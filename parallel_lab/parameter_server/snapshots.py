"""A shard on disk: the last state from which a spare can go on when its server has died.

Li et al. 2014 replicate each range to k neighbours (section 4.3), so that no update is lost. A snapshot is cheaper,
since nothing crosses the network, and loses the updates made after it: gradient descent makes up for them.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parallel_lab.parameter_server.sharding import Layout


def prepare(folder: str | os.PathLike) -> Path:
    """Makes the folder if it is missing and proves that it can be written; ValueError says why it cannot."""
    place = Path(folder)
    probe = place / f".writable-{os.getpid()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"snapshot={str(folder)!r} cannot be written: {error}. Name a folder that can.") from None
    return place


def file_of(folder: Path, shard: int) -> Path:
    """Where the snapshot of a shard stands."""
    return folder / f"shard{shard}.pt"


def save(folder: Path, layout: Layout, shard: int, version: int, values: Tensor, optimizer: Mapping[str, Any]) -> None:
    """Writes a shard's parameters, (elements,), its version and its optimizer's state dict, all or nothing."""
    path = file_of(folder, shard)
    waiting = path.with_suffix(f".{os.getpid()}.part")
    try:
        content = {"layout": asdict(layout), "shard": shard, "version": version}
        torch.save({**content, "values": values, "optimizer": optimizer}, waiting)
        os.replace(waiting, path)  # a server that dies while it writes leaves the one before
    finally:
        with contextlib.suppress(FileNotFoundError):
            waiting.unlink()


def load(folder: Path, layout: Layout, shard: int) -> tuple[int, Tensor, dict]:
    """Version, parameters and optimizer state of a shard's last snapshot.

    ValueError if there is none, it is damaged, or it was cut from another model or for another number of servers.
    """
    path = file_of(folder, shard)
    try:
        content = torch.load(path, weights_only=True)
        found = Layout(**content["layout"])
        version, values, optimizer = content["version"], content["values"], content["optimizer"]
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no snapshot of shard {shard}") from None
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"{path} is no snapshot, or a damaged one: {error}") from None
    if wrong := layout.difference(found):
        raise ValueError(f"{path} is of another layout: it holds {wrong}. Delete it, or serve what it was made for.")
    return version, values, optimizer
