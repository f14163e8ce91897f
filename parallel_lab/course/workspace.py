"""Where the course is, and where the learner's own part of it: the same from every working folder.

The course is a checkout, or what the installed package carries in `_course`. The learner's part is `work`: in a
checkout the folder of that name, else one that `plab start` made.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
CARRIED = Path(__file__).resolve().parents[1] / "_course"  # in a wheel only; setup.py puts it there
GIVEN = ".given"  # in `work`: what the course gave
FOLDER = "parallel-lab"  # what `plab start` makes where nothing is said


def root() -> Path:
    """The course's folder: the checkout of this package, else the nearest one upwards, else what is carried."""
    here = Path.cwd()
    checkouts = (one for one in (HERE, here, *here.parents) if _is_checkout(one))
    return next(checkouts, CARRIED if CARRIED.is_dir() else here)


def _is_checkout(folder: Path) -> bool:
    return (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file()


def notebook(chapter: str) -> Path:
    """The executed notebook of a chapter, by its two digits or by a name that begins with them.

    Raises:
        FileNotFoundError: the course has none.
    """
    folder = root() / "notebooks"
    if found := sorted(folder.glob(f"{chapter[:2]}_*.ipynb")):
        return found[0]
    raise FileNotFoundError(f"chapter {chapter[:2]} is not at hand: {folder} has no notebook of it")


def work() -> Path:
    """The learner's folder. Git ignores it, and nothing of the course is read from it."""
    course, here = root(), Path.cwd()
    if course != CARRIED:
        return course / "work"
    begun = (one / "work" for one in (here, here / FOLDER, *here.parents) if (one / "work" / GIVEN).is_dir())
    return next(begun, here / FOLDER / "work")


def shown(file: Path) -> Path:
    """Where JupyterLab, which sees the learner's folder, finds a file of the package."""
    if root() != CARRIED:
        return file
    return work() / CARRIED.parent.name / file.relative_to(CARRIED.parent)
