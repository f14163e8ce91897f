"""Checkpoints that any layout writes and any other reads: weights, moments, step, data position and random state.

The form is that of `data_parallel.checkpoint`: a rank saves what it alone answers for, named by the parameter and by
the elements of the *whole* parameter, so nobody who loads has to know how it was cut (`pieces.py`). `contents.py` has
what stands in the files; `systems.resilience.folder` sees to it that a checkpoint is there in full or not at all.

    rank-00000.pt    what a rank answers for, weights and moments; the states of its random generators
    index.pt         where each piece of each parameter is; length and checksum of each file; what is one for all ranks

    written per rank and save    what it answers for: over all ranks each number once, 12 bytes a parameter with Adam
    read per rank and load       first its share of the files in full, rank r every n-th, for the checksums, and n ranks
                                 read each file once; then what it holds, and no more: the files are mapped
    sent                         a table of the pieces; with zero=1 also the gather of the parameters, after loading

Random states are of ranks, not of the model. The same layout gives each rank its own back, and training goes on as if
it had not stopped, bit by bit. In another layout no state is a rank's own: generators then start from a seed made of
the run's seed and the step, the same at every such load, and dropout draws other masks than it would have drawn.
"""

import dataclasses
from contextlib import ExitStack
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab.agree.arguments import keyword_only, whole
from parallel_lab.hybrid import contents
from parallel_lab.hybrid.parallel import Parallel
from parallel_lab.hybrid.parameters import refresh
from parallel_lab.runtime import seed_for
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.checksum import Stamp
from parallel_lab.systems.resilience.folder import latest as latest
from parallel_lab.systems.resilience.together import agreed, gathered
from parallel_lab.trace import tag
from parallel_lab.trace.units import format_bytes

DRAW_APART = "pp", "dp", "cp"  # axes along which dropout masks differ; those of tp are copies


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run had come.

    Attributes:
        step: As it was saved.
        data: As it was saved.
        same_layout: Whether each rank got its own random state back; if not, it was made from seed and step.
    """

    step: int
    data: Any
    same_layout: bool


@keyword_only()
def save(parallel: Parallel, directory: str | PathLike, *, step: int, data: Any = None, keep: int = 2) -> Path:
    """Writes a checkpoint into `directory`, which all ranks see, and returns its folder. All ranks call it.

    Args:
        parallel: what `parallelize` made.
        directory: the folder of this run's checkpoints; it is made.
        step: how many steps were taken.
        data: where the run stands in its data: numbers, words, tensors, lists and dicts of these. Rank 0's is saved.
        keep: how many older checkpoints remain beside this one.

    Raises:
        TypeError: `step` or `keep` is no whole number.
        ValueError: `data` has something else in it, the optimizer looks at whole tensors, or another run saves here.
        OSError: a file cannot be written. In any of these cases the older checkpoints are as they were.
    """
    whole("step", step, 0)
    whole("keep", keep, 0)
    rank, why = dist.get_rank(), f"cannot save step {step} into {directory}"
    with ExitStack() as stack, tag(phase="checkpoint"):  # rank 0's stack has the lock, and removes what is unfinished

        def begin() -> str:
            if rank:
                return ""
            folder.check_readable("data", data)
            return str(stack.enter_context(folder.writing(directory)))

        def write() -> tuple[Stamp, Any]:
            shard = contents.shard(parallel) | {"random": _random_state(parallel.device)}
            return folder.write(partial / folder.shard(rank), shard), contents.table(parallel)

        def publish() -> str:
            if rank:
                return ""
            files = {folder.shard(number): tuple(stamp) for number, stamp in enumerate(stamps)}
            index = contents.index(parallel, tables) | {"files": files, "step": step, "data": data}
            folder.write(partial / folder.INDEX, index | {"seed": torch.initial_seed()})
            return str(folder.publish(partial, step, keep))

        partial = Path(gathered(agreed(begin, why, stack.close))[0])
        stamps, tables = zip(*gathered(agreed(write, why, stack.close)), strict=True)
        return Path(gathered(agreed(publish, why, stack.close))[0])


def load(parallel: Parallel, directory: str | PathLike) -> Progress:
    """Takes over the newest whole checkpoint of `directory`, or the one that `directory` is. All ranks call it.

    It reads, into this layout, what any layout has saved of the same model and class of optimizer. A checkpoint with a
    missing or damaged file is passed over where there is an older one, with a warning on rank 0.

    Raises:
        FileNotFoundError: there is no complete checkpoint.
        ValueError: a file is missing or damaged and no older checkpoint is left, or the checkpoint is of another model
            or optimizer. The message names the file, or the first difference. Nothing was changed on any rank.
    """
    rank, why = dist.get_rank(), "cannot load"
    with tag(phase="checkpoint"):
        where = _whole(directory, why)
        here = {name: each for rows in gathered(contents.whole_parameters(parallel)) for name, each in rows.items()}

        def look() -> tuple[contents.Reader, dict[str, torch.Tensor]]:
            reader = contents.Reader(parallel, where, here)
            same = reader.index["layout"] == dataclasses.asdict(parallel.layout)
            return reader, reader.shard(rank)["random"] if same else {}

        reader, random = agreed(look, why)
        reader.copy()
        refresh(parallel)
    index = reader.index
    _set_random_state(parallel, random, index["seed"] + index["step"])
    return Progress(index["step"], index["data"], bool(random))


def describe(directory: str | PathLike) -> str:
    """What the newest checkpoint of `directory` holds, or the one that it is, in words; no elements are read.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is missing or damaged.
    """
    where = folder.find(directory)
    index = folder.read_index(where)
    files = folder.stamps(index)
    layout = " ".join(f"{axis}={size}" for axis, size in index["layout"].items())
    parameters = sum(prod(each["shape"]) for each in index["parameters"].values())
    lines = [
        f"{where.name}: {parameters:,} parameters after {index['step']:,} steps, saved by {len(files)} ranks, {layout}",
        f"data: {index['data']!r}; seed: {index['seed']}; optimizer: {index['optimizer']}, "
        + "; ".join(f"lr {each.get('lr')}" for each in index["settings"]),
    ]
    for name, stamp in files.items():
        values = folder.read(where / name, Stamp(stamp.bytes))["values"]
        elements = sum(each[""].numel() for each in values.values())
        keys = dict.fromkeys(key for each in values.values() for key in each if key)
        beside = f", each with {', '.join(keys)}" if keys else ""
        what = f"{elements:,} elements of {len(values)} parameters{beside}" if values else "a random state"
        lines.append(f"{name}  {format_bytes(stamp.bytes):>8}  {what}")
    return "\n".join(lines)


def _whole(directory: str | PathLike, why: str) -> Path:
    """The checkpoint to load: the newest that is whole, each rank having looked at its share of the files."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found = gathered(agreed(lambda: [] if rank else folder.candidates(directory), why))[0]
    for where in found[:-1]:
        problems = gathered(folder.problem(where, rank=rank, ranks=ranks))
        if not any(problems):
            return where
        if rank == 0:
            folder.pass_over(where, next(filter(None, problems)))
    agreed(lambda: folder.verify(found[-1], rank=rank, ranks=ranks), why)
    return found[-1]


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators on this rank, by kind of device."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _set_random_state(parallel: Parallel, states: dict[str, torch.Tensor], seed: int) -> None:
    """Gives the generators these states, and those that have none a start made of `seed` and the rank's place."""
    torch.manual_seed(seed_for(parallel.mesh, DRAW_APART, seed=seed))
    if "cpu" in states:
        torch.set_rng_state(states["cpu"].clone())
    if "cuda" in states and parallel.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].clone(), parallel.device)
