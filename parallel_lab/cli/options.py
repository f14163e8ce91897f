"""What options of several commands share: the language, and files to write."""

from pathlib import Path
from typing import Any

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.course.spoken import LANGUAGES

language = click.option(
    "--language", type=click.Choice(LANGUAGES), help="en or zh; PARALLEL_LAB_LANGUAGE is the default."
)


class NewFile(click.Path):
    """A file to write; that its folder is there is seen before anything runs."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The file.

        Raises:
            CommandError: its folder is not there.
        """
        file = Path(str(super().convert(value, param, ctx)))
        if not file.absolute().parent.is_dir():
            raise CommandError(f"{file}: there is no folder {file.parent}")
        return file
