"""What commands need of modules that load torch or matplotlib: loaded when it is first used, so no `--help` waits.

The names, and where they are from, stand in `late.pyi`. A module that has a type from here in a signature begins with
`from __future__ import annotations`, or the signature would load it.
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def __getattr__(name: str) -> Any:
    """What `late.pyi` has under this name."""
    if name not in _places():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _places()[name]
    return getattr(import_module(module), attribute) if attribute else import_module(module)


@cache
def _places() -> dict[str, tuple[str, str]]:
    """The module of each name and the name there, which is empty for the module itself."""
    found = {}
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {one.asname or one.name: (str(node.module), one.name) for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {str(one.asname): (one.name, "") for one in node.names}
    return found
