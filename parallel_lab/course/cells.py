"""The notebook in which a report stands: which cell defined the answer, when it ran, what one may type next."""

import re
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Ran(NamedTuple):
    """A cell that was run."""

    number: int  # as in In[7]
    source: str
    at_s: float  # when it ended
    error: str  # the name of the exception that ended it; empty if none did


_ran: list[Ran] = []


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _note(result: Any) -> None:
    error = result.error_before_exec or result.error_in_exec
    number = result.execution_count or _shell().execution_count - 1
    _ran.append(Ran(number, result.info.raw_cell, time.time(), type(error).__name__ if error else ""))


def listen() -> None:
    """From now on notes the cells that are run, in IPython."""
    if (shell := _shell()) and _note not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", _note)


def typed_here(call: str) -> str:
    """A call as one types it into the next cell: in a notebook that lacks its name, with the import."""
    name, shell = call.partition("(")[0], _shell()
    return call if shell is None or name in shell.user_ns else f"from parallel_lab import {name}; {call}"


def defined_in(fn: Callable) -> str:
    """`the cell In[30], run 3 minutes ago`; empty where `fn` is from no cell of this notebook."""
    if not (number := _number(fn)):
        return ""
    ran = next((f", run {_ago(time.time() - cell.at_s)}" for cell in reversed(_ran) if cell.number == number), "")
    return f"the cell In[{number}]{ran}"


def failed_since(name: str, fn: Callable) -> str:
    """That a later cell meant to define `name` anew and failed; empty if none did."""
    own = _number(fn)
    begins = re.compile(rf"^(?:def|class) +{name}\b|^{name} *=", re.MULTILINE)
    last = next((cell for cell in reversed(_ran) if begins.search(cell.source)), None)
    if own is None or last is None or not last.error or last.number <= own:
        return ""
    return f"The cell In[{last.number}] ended with a {last.error}, so the older definition of In[{own}] was graded."


def _number(fn: Callable) -> int | None:
    file = getattr(getattr(fn, "__code__", None), "co_filename", "")
    return getattr(getattr(_shell(), "compile", None), "_filename_map", {}).get(file)


def _ago(seconds: float) -> str:
    for unit, length_s in (("hour", 3600), ("minute", 60)):
        if count := int(seconds // length_s):
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return f"{max(int(seconds), 1)} s ago"
