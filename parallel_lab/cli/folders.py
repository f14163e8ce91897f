"""Where notebooks are, the course's and the learner's."""

from pathlib import Path

from parallel_lab.course import workspace


class CommandError(Exception):
    """Something that the learner can put right; the message is one line."""


def notebook_named(name: str, folder: str) -> Path:
    """`<folder>/NN_name.ipynb` of the course for `02`, `02_collectives` or the file's name.

    Raises:
        CommandError: there is none of this name, or more than one.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    files = sorted((workspace.root() / folder).glob("*.ipynb"))
    found = [file for file in files if file.stem == stem or file.stem.split("_")[0] == stem.zfill(2)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(file.stem for file in found or files) or "none"
    raise CommandError(f"no single notebook {name!r} in {folder}; there are: {known}")


def learners(file: Path) -> Path:
    """The learner's own copy of a file of the course, which need not be there yet."""
    return workspace.work() / file.parent.name / file.name
