"""A checkpoint that runs code when it is loaded, and the formats that do not.

A pickle is a program for a small machine: it may name any function that can be imported, and have it called. So to
unpickle a file is to run it. `torch.save` writes a pickle. Three defenses:

- `torch.load(weights_only=True)`, the default since torch 2.6, unpickles with a list of allowed names and refuses all
  others before they are called. Torch 2.5.1 and older could be made to run code even so (CVE-2025-32434).
- safetensors is a header in JSON and then the numbers: there is nothing in the format that could be called.
- A scan reads the names that a pickle would import without running it. A list of *forbidden* names misses what nobody
  thought of; a list of *allowed* names refuses it. (picklescan 1.0.5 reports `getattr` and counts `io.open`, which
  empties any file, among the merely suspicious; fickling 0.1.12 warns of a plain state_dict too. A test holds this.)

What none of these stops: weights that were trained or changed to misbehave, a file swapped for another valid one
(a digest from a trusted place tells, or `at_rest`), and code that a model's repository brings beside its weights.

The attack here writes an empty marker file, into a folder that the caller names, and does nothing else.
"""

import io
import os
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

ALLOWED = frozenset(
    {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"}
    | {
        f"torch.{name}Storage"
        for name in ["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
    }
)  # what a plain state_dict needs


class Unsafe(ValueError):
    """A file is not only weights."""


class Planted:
    """Something that, when it is unpickled, creates the file `marker`: `__reduce__` says which call makes it anew."""

    def __init__(self, marker: str | os.PathLike) -> None:
        self.marker = Path(marker)

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


class Opened(Planted):
    """The same by `open`, which stands in the pickle as `io.open`: other names for the same function."""

    def __reduce__(self) -> tuple:
        return open, (str(self.marker), "w")


def plant(
    path: str | os.PathLike, weights: Mapping[str, Tensor], marker: str | os.PathLike, kind: type[Planted] = Planted
) -> None:
    """Writes a checkpoint of `weights` that creates `marker` where it is loaded with trust."""
    torch.save({"model": dict(weights), "scheduler": kind(marker)}, path)


def load_trusting(path: str | os.PathLike) -> dict:
    """Loads a checkpoint as torch before 2.6 did by default: whatever it asks for is called."""
    return torch.load(path, weights_only=False)


def load_weights(path: str | os.PathLike) -> dict:
    """Loads a checkpoint that may hold tensors and plain containers only.

    Raises:
        Unsafe: it names anything else; nothing of it was called.
    """
    try:
        return torch.load(path, weights_only=True)
    except UnpicklingError as error:
        raise Unsafe(f"{Path(path).name}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """The sentence of torch's long message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = next((line for line in lines if line.startswith("WeightsUnpickler error")), lines[0])
    return told.removeprefix("WeightsUnpickler error: ").split(" was not an allowed global")[0] + " is not allowed"


def save_tensors(path: str | os.PathLike, weights: Mapping[str, Tensor]) -> None:
    """Writes the tensors as safetensors: 8 bytes for the header's length, the header in JSON, the numbers."""
    save_file({name: each.detach().contiguous() for name, each in weights.items()}, path)


def load_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        Unsafe: it is none; a pickle is none.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise Unsafe(f"{Path(path).name}: {error}") from None


def names_in(path: str | os.PathLike) -> list[str]:
    """What the pickles in a file of `torch.save` would import, as "module.name"; nothing is run.

    `torch.save` writes each name out. A name that is put together on the machine's stack, or taken from a registry,
    cannot be known without running the pickle: it is given as "?", which no list allows.

    Raises:
        Unsafe: the file is no zip archive, as `torch.save` writes it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    except zipfile.BadZipFile:
        raise Unsafe(f"{Path(path).name}: no archive of torch.save") from None
    return sorted({name for data in pickles for name in _names(data)})


def _names(data: bytes) -> Iterator[str]:
    for code, argument, _ in pickletools.genops(io.BytesIO(data)):
        if code.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif code.name == "STACK_GLOBAL" or code.name.startswith("EXT"):
            yield "?"


def not_allowed(path: str | os.PathLike, allowed: frozenset[str] = ALLOWED) -> list[str]:
    """The names in a file that are not among the allowed ones; empty for a plain state_dict."""
    return [name for name in names_in(path) if name not in allowed]
