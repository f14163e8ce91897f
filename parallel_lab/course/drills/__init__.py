"""The drills, one module per chapter. They compute with the package's formulas, which load torch."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from parallel_lab.course.drills.engine import PROBLEMS, Problem

_HEAD = re.compile(r'^@problem\("([\w-]+)", chapter="(\d\d)"\)$', re.MULTILINE)


@cache
def listed() -> dict[str, str]:
    """The chapter of each drill by its name, in the order of the chapters; read without loading a drill."""
    found = [pair for file in Path(__file__).parent.glob("*.py") for pair in _HEAD.findall(file.read_text("utf-8"))]
    return dict(sorted(found, key=lambda pair: pair[1]))


@cache
def problems() -> dict[str, Problem]:
    """All drills by name, in the order of the chapters."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return {name: PROBLEMS[name] for name in listed()}
