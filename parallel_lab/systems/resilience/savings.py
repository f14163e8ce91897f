"""Four ways to save a model that one meets, for `crash_points`: which of them a kill at any moment leaves loadable.

They differ in where they write and in which order.

    in place        the file of the last checkpoint is opened and written over
    folder a step   a new folder `step-7`, several files in it; a resume takes the newest folder
    pointer first   the same, and a file `latest` that names the folder, written before the folder is
    aside           `folder.py`: a hidden folder, all files synced, one rename
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from parallel_lab.runtime.crash_points import Point, kill_everywhere
from parallel_lab.systems.resilience import folder

FILES = "model.pt", "optimizer.pt"


class Saving(NamedTuple):
    """A way to save, and how what it wrote is found again.

    Attributes:
        save: `save(where, step)` writes a checkpoint of a step.
        load: `load(where)` gives the step of what a resume would take, once all of its files were read.
    """

    save: Callable[[Path, int], Any]
    load: Callable[[Path], int]


def _content(step: int) -> dict[str, Any]:
    return {"step": step, "values": torch.full((4096,), float(step))}


def _write(where: Path, step: int) -> None:
    for name in FILES:
        torch.save(_content(step), where / name)


def _read(where: Path) -> int:
    """The step of the files in `where`.

    Raises:
        ValueError: the files are of several steps.
    """
    found = [torch.load(where / name, weights_only=True) for name in FILES]
    steps = {float(value) for each in found for value in (each["step"], *each["values"].unique())}
    if len(steps) > 1:
        raise ValueError(f"one checkpoint with files of steps {sorted(steps)}")
    return int(steps.pop())


def _folder_a_step(where: Path, step: int) -> None:
    made = where / f"step-{step}"
    made.mkdir()
    _write(made, step)


def _newest(where: Path) -> int:
    return _read(max(where.glob("step-*"), key=lambda each: int(each.name.split("-")[1])))


def _pointer_first(where: Path, step: int) -> None:
    (where / "latest").write_text(f"step-{step}")
    _folder_a_step(where, step)


def _aside(where: Path, step: int) -> None:
    with folder.writing(where) as partial:
        stamps = {name: tuple(folder.write(partial / name, _content(step))) for name in FILES}
        folder.write(partial / folder.INDEX, {"files": stamps, "step": step})
        folder.publish(partial, step, keep=0)


def _whole(where: Path) -> int:
    found = folder.latest_whole(where)
    if found is None:
        raise ValueError("there is no whole checkpoint")
    return _read(found)


SAVINGS = {
    "in place": Saving(_write, _read),
    "folder a step": Saving(_folder_a_step, _newest),
    "pointer first": Saving(_pointer_first, lambda where: _read(where / (where / "latest").read_text())),
    "aside": Saving(_aside, _whole),
}


def survey(where: Path, *, every: int = 1) -> dict[str, list[Point]]:
    """By way of saving, what a kill at each of its calls leaves, when step 1 is there and step 2 is being saved.

    It forks, so it is to run in a rank: `launch(survey, folder, every=4, ranks=1)[0]`.
    """
    found = {}
    for name, way in SAVINGS.items():
        place = where / name.replace(" ", "-")
        place.mkdir()
        points = kill_everywhere(
            lambda folder, way=way: way.save(folder, 2),
            way.load,
            prepare=lambda folder, way=way: way.save(folder, 1),
            where=place,
            expected=lambda step: step in (1, 2),
            every=every,
        )
        found[name] = list(points)
    return found
