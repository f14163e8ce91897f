"""Snapshots: a shard on disk, from which a run can go on, or a spare when the server has died.

Li et al. 2014 copy each range to k neighbors (section 4.3), so that no update is lost. A snapshot is cheaper, since
nothing crosses the network, and loses the updates made after it: gradient descent makes up for them.
"""

import contextlib
import os
from pathlib import Path

import torch
from torch import nn

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server.server import Shard
from parallel_lab.parameter_server.shards import trainable
from parallel_lab.parameter_server.wire import Header


class Snapshots:
    """Writes a shard at the start and after each `every` updates: `serve(..., on_update=Snapshots(...))`.

    A shard is a file in `folder`, which is made if it is missing. With `resume`, the run begins from what stands there.

    Raises:
        TypeError, ValueError: `every` is no whole number from 1, or the folder cannot be written.
    """

    def __init__(
        self, folder: str | os.PathLike, model: nn.Module, *, servers: int = 1, every: int = 10, resume: bool = False
    ) -> None:
        self.folder, self.every, self._resume = Path(folder), whole("every", every), resume
        shapes = {name: list(p.shape) for name, p in trainable(model).items()}
        self._layout = {"servers": servers, "dtype": str(next(iter(trainable(model).values())).dtype)} | shapes
        probe = self.folder / f".writable-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            text = f"the folder {str(folder)!r} of snapshots cannot be written: {error}. Name a folder that can."
            raise ValueError(text) from None

    def __call__(self, shard: Shard) -> None:
        """Writes the shard if it is time, or goes back to its snapshot at the start of a run that resumes."""
        if self._resume:
            self._resume = False
            self.restore(shard)
        elif shard.state.version % self.every == 0:
            self.save(shard)

    def file(self, shard: int) -> Path:
        """Where the snapshot of a shard stands."""
        return self.folder / f"shard{shard}.pt"

    def save(self, shard: Shard) -> None:
        """Writes the version, the parameters and the state of the optimizer: all or nothing."""
        path = self.file(shard.index)
        waiting = path.with_suffix(f".{os.getpid()}.part")
        content = {"version": shard.state.version, "w": shard.w.detach(), "optimizer": shard.optimizer.state_dict()}
        try:
            torch.save({"layout": self._layout, **content}, waiting)
            os.replace(waiting, path)  # a server that dies while it writes leaves the snapshot before
        finally:
            with contextlib.suppress(FileNotFoundError):
                waiting.unlink()

    @torch.no_grad()
    def restore(self, shard: Shard) -> None:
        """Goes back to the last snapshot of the shard.

        Raises:
            ValueError: there is none, it is damaged, or it is of another model or another number of servers.
        """
        path = self.file(shard.index)
        try:
            content = torch.load(path, weights_only=True)
            layout, version, w, optimizer = (content[name] for name in ("layout", "version", "w", "optimizer"))
        except FileNotFoundError:
            raise ValueError(f"{path}: there is no snapshot of shard {shard.index}") from None
        except Exception as error:  # torch raises many kinds
            raise ValueError(f"{path} is no snapshot, or a damaged one: {error}") from None
        for name in self._layout | layout:
            if (found := layout.get(name)) != (mine := self._layout.get(name)):
                text = f"its {name} is {found}, and that of this model is {mine}"
                raise ValueError(f"{path} is of another layout: {text}. Delete it, or serve what it was made for.")
        shard.w.copy_(w)
        shard.optimizer.load_state_dict(optimizer)
        shard.state.version = version
        shard.answer.header = Header(version=version)
