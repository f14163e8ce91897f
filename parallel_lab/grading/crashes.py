"""The task of chapter 16 on checkpoints: what is loaded after a kill at each call of a save, and after a flipped bit.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case
from parallel_lab.runtime.crash_points import Call, kill_everywhere, recorded

KEPT, RENAMES = 2, ("rename", "replace")
State = dict[str, Tensor]


def states(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """The tensors of a state, of `shapes`."""
    return ([torch.randn(shape, generator=generator) for shape in case["shapes"]],)


def at_step(tensors: list[Tensor], step: int) -> State:
    """What is saved at a step: every element is another one at every step."""
    return {f"tensor {number}": tensor + step for number, tensor in enumerate(tensors)}


def observe(fn: Callable, case: Case, tensors: list[Tensor]) -> Any:
    """`fn(folder)` gives `save` and `load`; what they do in the way that the case looks for."""
    with tempfile.TemporaryDirectory(prefix="parallel-lab-") as disk:
        _made(fn, Path(disk) / "first")  # an answer that is not begun says so here
        looks = {"loads": _loads, "kills": _kills, "flips": _flips, "syncs": _syncs}
        return looks[case["look"]](fn, tensors, Path(disk))


def _made(fn: Callable, folder: Path) -> tuple[Callable, Callable]:
    if not folder.is_dir():
        folder.mkdir()
    save, load = fn(folder)
    return save, load


def _save(fn: Callable, tensors: list[Tensor], folder: Path, *steps: int) -> None:
    for step in steps:
        _made(fn, folder)[0](at_step(tensors, step), step)


def _load(fn: Callable, tensors: list[Tensor], folder: Path) -> int | str:
    """The step that is loaded, where it is that step's state; otherwise a few words."""
    loaded = _made(fn, folder)[1]()
    if loaded is None:
        return "None: no checkpoint"
    state, step = loaded
    right = at_step(tensors, step)
    if state.keys() != right.keys():
        return f"step {step} with the names {sorted(state)}"
    wrong = next((name for name in right if not torch.equal(state[name], right[name])), "")
    return f"step {step} with {wrong} changed" if wrong else step


def _loads(fn: Callable, tensors: list[Tensor], disk: Path) -> list:
    """What each load finds: of an empty folder, and after each save, in objects made anew."""
    folder = disk / "run"
    found = [_load(fn, tensors, folder)]
    for step in (1, 2, 30):
        _save(fn, tensors, folder, step)
        found.append(_load(fn, tensors, folder))
    return found


def _kills(fn: Callable, tensors: list[Tensor], disk: Path) -> list:
    """The first kill after which something is wrong: in what, and what was found; empty where there is none."""

    def load(folder: Path) -> list:
        found = _load(fn, tensors, folder)
        _save(fn, tensors, folder, 4)
        return [found, _load(fn, tensors, folder)]

    points = kill_everywhere(
        lambda folder: _save(fn, tensors, folder, 3),
        load,
        prepare=lambda folder: _save(fn, tensors, folder, 1, 2),
        where=disk,
        expected=lambda found: found in ([2, 4], [3, 4]),
    )
    dead = islice((point for point in points if not point.survived), 1)
    return [[point.number, str(point.call), point.found] for point in dead]


def _flips(fn: Callable, tensors: list[Tensor], disk: Path) -> list:
    """The file, and what is loaded, for a changed bit in each place where an element of the newest state stands."""
    folder = disk / "run"
    _save(fn, tensors, folder, 1, 2)
    found = []
    for file, place in _places(folder, at_step(tensors, 2)):
        content = file.read_bytes()
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            loaded = _load(fn, tensors, folder)
        except Exception as error:
            loaded = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        found.append([file.name, loaded])
        file.write_bytes(content)
    return found


def _places(folder: Path, state: State) -> Iterator[tuple[Path, int]]:
    """Each place in a file at which the last byte of a tensor stands."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for tensor in state.values():
            raw = tensor.numpy().tobytes()
            if (start := content.find(raw)) >= 0:
                yield file, start + len(raw) - 1


def _syncs(fn: Callable, tensors: list[Tensor], disk: Path) -> list:
    """The calls of a save: kind and names of each."""
    folder = disk / "run"
    calls = recorded(lambda: _save(fn, tensors, folder, 3), lambda: _save(fn, tensors, folder, 1, 2))
    return [[call.kind, *call.names] for call in calls]


@grader
def loads_the_newest(outcome: Outcome, advice: str) -> None:
    """Of an empty folder None, and then the last that was saved."""
    expected = ["None: no checkpoint", 1, 2, 30]
    whens = ["of an empty folder", "after save(…, 1)", "after a save of step 2", "after a save of step 30"]
    for when, found, right in zip(whens, outcome.results[0], expected, strict=True):
        if found != right:
            raise Wrong(f"{outcome.at}: load() {when} gave {_said(found)}, expected {_said(right)}", advice)


@grader
def survives(outcome: Outcome, advice: dict[str, str]) -> None:
    """After a kill at any call the old or the new one is loaded, and the next save works; `advice` by what failed."""
    for number, call, found in outcome.results[0]:
        where = f"{outcome.at}: the saving of step 3 was killed at its call {number}, {_moment(call)}"
        if isinstance(found, str):
            raise Wrong(f"{where}: then loading, or the save after it, raised {found}", advice["raised"])
        if found[0] not in (2, 3):
            kind = "nothing" if str(found[0]).startswith("None") else "other"
            raise Wrong(f"{where}: load() gave {_said(found[0])}, expected step 2 or 3, whole", advice[kind])
        raise Wrong(f"{where}: after the next save, of step 4, load() gave {_said(found[1])}", advice["next"])


@grader
def finds_flips(outcome: Outcome, advice: str, older: str) -> None:
    """A damaged checkpoint is never returned; the one before it is."""
    if not outcome.results[0]:
        raise Wrong(f"{outcome.at}: the elements of the newest state stand in no file of the folder", advice)
    for file, found in outcome.results[0]:
        if found != 1:
            seen = f"{outcome.at}: one bit of {file} was changed, and load() gave {_said(found)}"
            changed = str(found).endswith("changed") or found == 2
            raise Wrong(f"{seen}; the whole one is that of step 1", advice if changed else older)


@grader
def syncs(outcome: Outcome, files: str, folders: str) -> None:
    """Every file that is written is synced before the rename that makes it count, and the folder after it."""
    calls = [Call(kind, tuple(names)) for kind, *names in outcome.results[0]]
    renames = [place for place, call in enumerate(calls) if call.kind in RENAMES]
    if not renames:
        raise Wrong(f"{outcome.at}: a save calls no rename and no replace", files)
    last = max((place for place, call in enumerate(calls) if call.kind == "write"), default=-1)
    count = next((place for place in renames if place > last), renames[-1])
    for name in dict.fromkeys(call.names[0] for call in calls[:count] if call.kind == "write"):
        written = max(place for place, call in enumerate(calls[:count]) if call == Call("write", (name,)))
        if Call("fsync", (name,)) not in calls[written:count]:
            seen = f"{outcome.at}: {name} is not synced between its last write and the {calls[count]}"
            raise Wrong(seen, files)
    if not any(call.kind == "fsync" for call in calls[count + 1 :]):
        raise Wrong(f"{outcome.at}: nothing is synced after the {calls[count]}", folders)


def _moment(call: str) -> str:
    kind, name = call.split(" ", 1) if not call.startswith("half a write") else ("half a write", call[13:])
    return f"in the middle of a write to {name}" if kind == "half a write" else f"before {kind} {name}"


def _said(found: Any) -> str:
    return f"step {found}" if isinstance(found, int) else str(found)
