"""`crash_safe_checkpoint`: in place, newest by name, a pointer first, the old one deleted, no checksum, no fsync."""

import functools
import os
import shutil
import zlib

import pytest
import torch
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "crash_safe_checkpoint"


def in_place(folder):
    def save(state, step):
        torch.save((state, step), folder / "last.pt")

    def load():
        return torch.load(folder / "last.pt") if (folder / "last.pt").exists() else None

    return save, load


def steps(folder):
    return sorted(folder.glob("step-*"), key=lambda each: int(each.name[5:]))


def read(each):
    return torch.load(each / "state.pt"), int(each.name[5:])


def write(made, state):
    made.mkdir(exist_ok=True)
    torch.save(state, made / "state.pt")


def newest_by_name(folder):
    def load():
        return read(steps(folder)[-1]) if steps(folder) else None

    return lambda state, step: write(folder / f"step-{step}", state), load


def pointer_first(folder):
    def save(state, step):
        (folder / ".latest").write_text(f"step-{step}")
        os.replace(folder / ".latest", folder / "latest")
        write(folder / f"step-{step}", state)

    def load():
        return read(folder / (folder / "latest").read_text()) if (folder / "latest").exists() else None

    return save, load


def aside(folder, kept=2, checksum=True, sync=False, before=False):
    """Right, but for what the arguments leave out."""

    def remove(most):
        for old in steps(folder)[: len(steps(folder)) - most]:
            os.rename(old, folder / ".gone")
            shutil.rmtree(folder / ".gone")

    def save(state, step):
        for left in (folder / ".partial", folder / ".gone"):
            shutil.rmtree(left, ignore_errors=True)
        if before:
            remove(0)
        write(folder / ".partial", state)
        file = folder / ".partial" / "state.pt"
        (folder / ".partial" / "sum").write_text(str(zlib.crc32(file.read_bytes()) if checksum else 0))
        for path in (file, folder / ".partial" / "sum") if sync else ():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        os.rename(folder / ".partial", folder / f"step-{step}")
        remove(kept)

    def load():
        for each in reversed(steps(folder)):
            if not checksum or zlib.crc32((each / "state.pt").read_bytes()) == int((each / "sum").read_text()):
                return read(each)
        return None

    return save, load


deletes_first = functools.partial(aside, before=True)
no_checksum = functools.partial(aside, checksum=False)
no_fsync = functools.partial(aside)
files_alone = functools.partial(aside, sync=True)
keeps_one = functools.partial(aside, kept=1)

CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        in_place,
        1,
        r"was killed at its call 1, before write last.pt: then loading, or the save after it, raised EOFError",
    ),
    (
        newest_by_name,
        1,
        r"before open state.pt: then loading, .*raised FileNotFoundError.*\n.*Which one call shows all",
    ),
    (pointer_first, 1, r"before mkdir step-3: then loading, .*raised FileNotFoundError.*\n.*Which one call shows all"),
    (deletes_first, 1, r"load\(\) gave None: no checkpoint, expected step 2 or 3.*\n.*only when the new one counts"),
    (no_checksum, 2, r"one bit of state.pt was changed, and load\(\) gave step 2 with tensor . changed"),
    (no_fsync, 3, r"state.pt is not synced between its last write and the rename .partial -> step-3"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_what_is_almost_right_is_told_what_is_missing():
    assert_found_out(NAME, files_alone, 3, r"nothing is synced after the rename .partial -> step-3")
    assert_found_out(NAME, keeps_one, 2, r"load\(\) gave None: no checkpoint; the whole one is .*\n.*passed over")


def one_file(folder):
    """Not a cheat: each checkpoint is one file, whose name has the checksum."""

    def sync(path):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def files():
        return sorted(folder.glob("*.pt"), key=lambda each: int(each.name.split("-")[0]))

    def save(state, step):
        with open(folder / ".new", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        checksum = zlib.crc32((folder / ".new").read_bytes())
        os.replace(folder / ".new", folder / f"{step}-{checksum}.pt")
        sync(folder)
        for old in files()[:-2]:
            old.unlink()

    def load():
        for each in reversed(files()):
            step, checksum = map(int, each.stem.split("-"))
            if zlib.crc32(each.read_bytes()) == checksum:
                return torch.load(each), step
        return None

    return save, load


def test_another_right_answer_passes():
    assert_passes(NAME, one_file)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, no_checksum, "one bit of state.pt was changed")
