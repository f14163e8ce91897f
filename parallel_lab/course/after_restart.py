"""An IPython extension: a NameError says what brings the name back when the kernel was started again."""

from types import TracebackType
from typing import Any

BRINGS_BACK = "If the kernel was started again: Run > Run All Above Selected Cell."


def load_ipython_extension(shell: Any) -> None:
    """What IPython calls in each kernel of the lab, see `opening.settle`."""
    shell.set_custom_exc((NameError,), _shown)


def _shown(
    shell: Any, kind: type[NameError], error: NameError, trace: TracebackType, tb_offset: int | None = None
) -> None:
    """Shows the error as ever, and below it the note."""
    if not isinstance(error, UnboundLocalError) and error.name:
        error.add_note(f"No cell that this kernel has run defines `{error.name}`. {BRINGS_BACK}")
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
