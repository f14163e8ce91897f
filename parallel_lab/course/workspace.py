"""Where the course is, and where the learner's own part of it: the same from every working folder."""

from pathlib import Path

HERE = Path(__file__).resolve().parents[2]


def root() -> Path:
    """The course's folder: the checkout of this package, else the nearest one from the working folder upwards."""
    here = Path.cwd()
    return next((one for one in (HERE, here, *here.parents) if _is_course(one)), here)


def _is_course(folder: Path) -> bool:
    return (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file()


def work() -> Path:
    """The learner's folder. Git ignores it, and nothing of the course is read from it."""
    return root() / "work"
