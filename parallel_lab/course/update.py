"""Brings the course to the learner: `pull` fetches its newest version, `bring` copies from it into `work`.

Nothing that a learner has written is lost. What was given is remembered in `work/.given`: the text of each file as the
course gave it. A file whose sources are still those that were given is replaced by a newer one; outputs do not count.
A file that the learner changed stays, and the newer one is laid beside it as NAME.new.ipynb; what he started from is
then remembered as well, so that it can be said what the course changed. Notebooks come without the
outputs that their predictions ask for. The list of changes is remembered in the same way, so that what is new can be
named however it came: by `pull`, or by `git pull`.
"""

import contextlib
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from parallel_lab.course import compared, workspace
from parallel_lab.course.progress import replace
from parallel_lab.course.workspace import GIVEN

COPIED = ("notebooks", "exercises", "solutions", "examples")
KINDS = (".ipynb", ".py")
LINKED = "parallel_lab"  # for the links of notebooks to the code that they explain
CHANGES = "CHANGELOG.md"
MOST_BESIDE = 100  # new versions of one file; all but the first stand beside ones that the learner changed as well
MOST_NEWS = 8  # lines of it that are shown
YOURS = "work/ is yours: it has a copy of every chapter, and nothing you change there is overwritten."
BESIDE = (
    "Compare each .new file with yours, take over what you want, and delete it: it does not come back. The cells that "
    "the course changed, line by line: plab update --diff NAME, with 02 or the name of a notebook."
)
STARTED, YOURS_NOW = "the version you started from", "yours"
BEFORE = ".before"  # in the name of what a changed file started from, as long as a new version lies beside it
RESTART = (
    "A notebook that is open runs the old code until you restart its kernel (menu Kernel, Restart Kernel), and shows "
    "its old text until you reload it (menu File, Reload Notebook from Disk)."
)
PLAIN = '"language_info": {\n   "name": "python"\n  }'  # as the course's notebooks have it
LANGUAGE = {  # as ipykernel 7 says it
    "codemirror_mode": {"name": "ipython", "version": sys.version_info[0]},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
    "version": sys.version.split()[0],
}
ADVICE = {
    "would be overwritten": "{files}: changed here and in the new version; put your change aside by `git stash`",
    "Not possible to fast-forward": "commits of yours stand in the way: put them on the new version by `git rebase`",
    "no tracking information": "this branch follows none of the remote: change to one that does, by `git switch main`",
    "not currently on a branch": "no branch is checked out: change to one, by `git switch main`",
}


class CannotPull(Exception):
    """Why the newest version could not be fetched, in a line."""


def pull(root: Path) -> str:
    """Fetches the newest version of the course in `root` by git, and merges nothing.

    Returns:
        The versions before and after, as `1a2b3c4..5d6e7f8`; empty where the newest one was here.

    Raises:
        CannotPull: there is no git, no remote, or something of the learner's in the way; nothing was changed.
    """
    if root == workspace.CARRIED:
        raise CannotPull("the course was installed by pip: upgrade the package as you installed it, then `plab start`")
    if shutil.which("git") is None:
        raise CannotPull("git is not installed")
    if not (root / ".git").exists():  # it may be a folder in the clone of something else
        raise CannotPull(f"{root} is no clone, so there is nothing to pull from: get the course by `git clone`")
    before = _git(root, "rev-parse", "--short", "HEAD").stdout.strip()
    if before and not _git(root, "remote").stdout:
        raise CannotPull("this clone has no remote to pull from: name one with `git remote add origin ADDRESS`")
    done = _git(root, "pull", "--no-rebase", "--ff-only", "--quiet")
    if done.returncode:
        files = ", ".join(re.findall(r"^\t(.+)$", done.stderr, re.MULTILINE))
        known = [advice for sign, advice in ADVICE.items() if sign in done.stderr]
        fatal = re.findall(r"^(?:fatal|error): (.+)$", done.stderr, re.MULTILINE) or ["no reason was given"]
        raise CannotPull(known[0].format(files=files) if known else f"git pull: {fatal[0]}")
    after = _git(root, "rev-parse", "--short", "HEAD").stdout.strip()
    return "" if before == after else f"{before}..{after}"


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """What git says in `root`, in English."""
    plain = os.environ | {"LC_ALL": "C"}
    return subprocess.run(["git", *arguments], cwd=root, env=plain, capture_output=True, text=True, errors="replace")


def bring(root: Path, work: Path | None = None) -> list[str]:
    """Brings `work` (default: `root/work`) up to date with the course in `root`; returns what was done, a line each.

    Raises:
        OSError: the folder cannot be written.
    """
    return _Bringing(root, work or root / "work").all()


class _Bringing:
    """One bringing of files, each named by its path below `root` and below `work`."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self.work, self.given = root, work, work / GIVEN
        self.brought: list[Path] = []
        self.laid_beside = False

    def all(self) -> list[str]:
        first = not self.given.exists()
        self.given.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # it is there, or this file system has no links
            inside = self.root == workspace.CARRIED
            (self.work / LINKED).symlink_to(workspace.CARRIED.parent if inside else Path("..", LINKED))
        names, changed = list(_names(self.root)), _changed(self.root)
        said = [self.one(name, name in changed) for name in names]
        said += [self.take_out(name) for name in _names(self.given) if name not in names and not _is_beside(name)]
        _trust([path for path in self.brought if path.suffix == ".ipynb"])
        if first:
            said = [line for line in said if not line.startswith("new: ")]
            said.insert(0, YOURS)
        said += [BESIDE] if self.laid_beside else []
        return [line for one in [*said, *self.news(first)] for line in one.splitlines()]

    def one(self, name: str, changed: bool) -> str:
        """Brings one file, which may be `changed` in the course's own folder; returns what was done, or nothing."""
        text = _read(self.root / name) if changed else _unguessed(_read(self.root / name))
        if not (self.work / name).exists():
            # What was changed in the course's own folder is the learner's: it is copied, and never taken for given.
            self.put(name, text, given=not changed)
            return f"new: work/{name}"
        given = _read(self.given / name)
        if changed or given == text:
            return ""
        if _sources(_read(self.work / name)) in (_sources(given), _sources(text)):
            self.put(name, text)
            (self.given / _before(name)).unlink(missing_ok=True)
            return f"brought up to date: work/{name}"
        if not (_lying(self.work, name) and (self.given / _before(name)).exists()):  # else it is remembered already
            _write(self.given / _before(name), given)
        beside, self.laid_beside = self.beside(name, text), True
        self.put(beside, text)
        _write(self.given / name, text)
        said = f"work/{name} stays as you changed it; the new version lies beside it: {Path(beside).name}"
        return "\n".join([said, *self.changed_cells(name, text)])

    def changed_cells(self, name: str, text: str) -> list[str]:
        """In which cells the new version differs, a line each; nothing where one of the two is no notebook."""
        started, whose = _started(self.work, name)
        try:
            found = compared.changes(started, text)
        except ValueError:
            return []
        return [f"  Against {whose}: {compared.counted(found)}.", *(f"    {one}" for one in compared.named(found))]

    def beside(self, name: str, text: str) -> str:
        """What the new version of `name` is called: the first such file that the learner has not, or not changed."""
        start, kind = os.path.splitext(name)
        for number in range(1, MOST_BESIDE):
            beside = f"{start}.new{'' if number == 1 else number}{kind}"
            there = _sources(_read(self.work / beside))
            if not (self.work / beside).exists() or there in (_sources(_read(self.given / beside)), _sources(text)):
                return beside
        raise FileExistsError(f"too many new versions of {name}")

    def take_out(self, name: str) -> str:
        """Takes out a file that the course has no longer, unless the learner changed it."""
        mine, given = _read(self.work / name), _read(self.given / name)
        (self.given / name).unlink()
        if _sources(mine) != _sources(given):
            return f"work/{name} is no longer part of the course; yours stays"
        (self.work / name).unlink(missing_ok=True)
        return f"no longer part of the course: work/{name}"

    def news(self, first: bool) -> list[str]:
        """What the list of changes says now and did not say the last time, a line each; nothing the `first` time."""
        text, given = _read(self.root / CHANGES), _read(self.given / CHANGES)
        if text == given:
            return []
        _write(self.given / CHANGES, text)
        if not given:  # nothing was remembered
            return [] if first else [f"What is new stands in {CHANGES}."]
        new = [one for one in _entries(text) if one not in _entries(given)]
        lines = [f"  - {textwrap.shorten(one, 112, placeholder=' ...')}" for one in new[:MOST_NEWS]]
        more = [f"  ... and {len(new) - MOST_NEWS} more"] if len(new) > MOST_NEWS else []
        return [f"What is new, from {CHANGES}:", *lines, *more] if new else []

    def put(self, name: str, text: str, given: bool = True) -> None:
        """Writes a file into the learner's folder and, if it is `given`, remembers it as such."""
        _write(self.work / name, _as_the_kernel_says(text))
        self.brought.append(self.work / name)
        if given:
            _write(self.given / name, text)


def differences(work: Path, name: str) -> list[str]:
    """Line by line, the cells in which each new version that lies in `work` differs from what the learner started from.

    Args:
        work: the learner's folder.
        name: of a chapter or a notebook: `02`, `02_collectives`, or the file's name.
    """
    said, stem = [], re.sub(r"(\.new\d*)?\.(ipynb|py)$", "", Path(name).name)
    for file in _names(work):
        own = Path(file).stem
        if not _is_beside(file) and stem.zfill(2) in (own, own.split("_")[0]) and (lying := _lying(work, file)):
            said += _compared(work, file, lying)
    return said


def _compared(work: Path, name: str, lying: str) -> list[str]:
    """The new version `lying` beside a file of the learner's: how many cells differ, and each with its lines."""
    started, whose = _started(work, name)
    text = _read(work / lying)
    try:
        found = compared.changes(started, text)
    except ValueError:  # a program, or a notebook that cannot be read
        lines = difflib.unified_diff(started.splitlines(), text.splitlines(), whose, lying, lineterm="")
        return [f"work/{lying} against {whose}:", *lines, ""]
    said = [f"work/{lying} against {whose}: {compared.counted(found)}.", ""]
    for one in found:
        said += [f"== {one.title}", *one.lines(), ""]
    return said


def _started(work: Path, name: str) -> tuple[str, str]:
    """What a changed file is to be compared with, and what that is called: what he started from, where it is known."""
    before = _read(work / GIVEN / _before(name))
    return (before, STARTED) if before else (_read(work / name), YOURS_NOW)


def _before(name: str) -> str:
    start, kind = os.path.splitext(name)
    return f"{start}{BEFORE}{kind}"


def _lying(work: Path, name: str) -> str:
    """The latest new version that lies beside a file of the learner's; empty if there is none."""
    start, kind = os.path.splitext(name)
    beside = [f"{start}.new{'' if number == 1 else number}{kind}" for number in range(1, MOST_BESIDE)]
    return next((one for one in reversed(beside) if (work / one).exists()), "")


def _is_beside(name: str) -> bool:
    """Whether a file is a new version that was laid beside, or what is remembered for one."""
    return re.search(r"\.(new\d*|before)\.\w+$", name) is not None


def _names(folder: Path) -> Iterator[str]:
    """The files below `folder` that learners get, by their paths from there."""
    for path in sorted(path for place in COPIED for path in (folder / place).rglob("*") if path.suffix in KINDS):
        name = path.relative_to(folder).as_posix()
        if "/." not in name and "/__" not in name:
            yield name


def _entries(changes: str) -> list[str]:
    """The entries of a list of changes, each in one line."""
    found = re.findall(r"^- (.+(?:\n  .+)*)", changes, re.MULTILINE)
    return [" ".join(one.split()) for one in found]


def _changed(root: Path) -> set[str]:
    """What was changed in the course's own folders, where learners once worked."""
    if shutil.which("git") is None or not (root / ".git").exists():
        return set()
    return set(_git(root, "diff", "--name-only", "HEAD", "--", *COPIED).stdout.splitlines())


def _unguessed(text: str) -> str:
    """A notebook without the outputs that a prediction asks for: JupyterLab shows the first line of a folded one."""
    if "outputs_hidden" not in text:
        return text
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).pop("outputs_hidden", False):
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _as_the_kernel_says(text: str) -> str:
    """A notebook with all that the kernel tells of its language, or JupyterLab marks it as changed when it opens."""
    if PLAIN not in text:
        return text
    notebook = json.loads(text)
    notebook["metadata"]["language_info"] = LANGUAGE
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _sources(text: str) -> list[tuple[str, str]] | str:
    """What a person writes in a notebook: its cells, but for empty ones; any other text is as it is."""
    try:
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError):
        return text
    return [(kind, source) for kind, source in cells if source.strip()]


def _trust(notebooks: list[Path]) -> None:
    """Signs what the course gave, or Jupyter would hide its pictures and warn of it at each opening and saving."""
    if notebooks:
        command = [sys.executable, "-m", "jupyter", "trust", *map(os.fspath, notebooks)]
        subprocess.run(command, capture_output=True, check=False)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, text)
