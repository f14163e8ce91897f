"""Runs the cells of a notebook as a script does, in one process and without Jupyter, and counts what failed.

    python tools/run_cells.py notebooks/00_start_here.ipynb [--on-gpu]

A cell that raises does not stop the others; one that is tagged `raises-exception` must raise. With `--on-gpu` every
tensor that a launched function is given or makes is put on its rank's device, since the cells themselves name none.
The last line says how many cells ran and which failed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from IPython.core.interactiveshell import InteractiveShell
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_map_only

import parallel_lab
from parallel_lab.course.progress import VARIABLE
from parallel_lab.runtime import rank_device


class MadeOn(TorchFunctionMode):
    """While it is active, a tensor that is made without a word on its device is made on the CPU and put on `device`.

    Not so one in pinned memory, which is host memory by its nature. What was made before, and is indexed by a tensor on
    `device`, goes there too.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.Tensor.__getitem__ and isinstance(args[1], torch.Tensor) and args[1].is_cuda:
            args = args[0].to(args[1].device), args[1]
        made = function(*args, **kwargs)
        if function in _device_constructors() and kwargs.get("device") is None and not kwargs.get("pin_memory"):
            return made.detach().to(self.device).requires_grad_(made.requires_grad)
        return made


def on_the_gpu(launch: Callable) -> Callable:
    """A `launch` whose function has its tensors on its rank's device; what it returns is on the CPU."""

    def launch_there(fn: Callable, *args: Any, **options: Any) -> Any:
        def there(*args: Any, **kwargs: Any) -> Any:
            device = rank_device()
            args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), (args, kwargs))
            with MadeOn(device):
                found = fn(*args, **kwargs)
            return tree_map_only(torch.Tensor, lambda tensor: tensor.cpu(), found)

        return launch(there, *args, **options)

    return launch_there


def run(path: Path) -> tuple[int, list[str]]:
    """How many cells of code there are, and for each that failed its id and why."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    shell, failed = InteractiveShell.instance(colors="nocolor"), []
    for cell in cells:
        print(f"-- {cell['id']}", flush=True)
        result = shell.run_cell("".join(cell["source"]), store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if bool(error) != ("raises-exception" in cell["metadata"].get("tags", [])):
            text = f"{type(error).__name__}: {error}" if error else "raised nothing"
            failed.append(f"{cell['id']} ({text.partition(chr(10))[0]:.120})")
    return len(cells), failed


def main() -> int:
    """The command; 1 if a cell failed."""
    parser = argparse.ArgumentParser(description="Run the cells of a notebook without Jupyter.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--on-gpu", action="store_true", help="put the tensors of ranks on their devices")
    options = parser.parse_args()
    if options.on_gpu:
        parallel_lab.launch = on_the_gpu(parallel_lab.launch)
    path = options.notebook.resolve()
    os.chdir(path.parent)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = f"{folder}/progress.json"  # as for a learner who has solved nothing yet
        cells, failed = run(path)
    print(f"{cells - len(failed)} of {cells} cells ran" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
