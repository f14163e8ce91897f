"""The command `plab`."""

from parallel_lab.cli.commands import main

__all__ = ["main"]
