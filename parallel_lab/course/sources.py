"""A look at learner code before it runs: does it reach for what it is meant to build? Best effort, by name.

Walks the function, the functions, classes and modules that its globals and closure name, and the code nested in it. A
learner can hide a call behind `exec`; the modules loaded in the rank are checked as well (`rank_side.graded`).
"""

import sys
import types
from collections.abc import Iterator
from typing import Any

# Code of these does not reach for a reference on a learner's behalf, and there is much of it.
_ELSEWHERE = {*sys.stdlib_module_names, "torch", "numpy"} - {"__main__"}


def uses(fn: Any, package: str) -> str:
    """How `fn` reaches `package` (`ring_all_reduce uses parallel_lab.collectives`); empty if it does not."""
    seen: set[int] = set()
    todo = [fn]
    while todo:
        function = _function(todo.pop())
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        for code in _codes(function.__code__):
            if _imports(code, package):
                return f"{function.__name__} imports {package}"
        for value in _reached(function):
            home = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
            if isinstance(home, str) and (home == package or home.startswith(package + ".")):
                return f"{function.__name__} uses {package}"
            todo += [value] if not isinstance(value, type) else list(vars(value).values())
    return ""


def _function(value: Any) -> Any:
    """The plain function inside `value`, if it has one that a learner may have written."""
    value = getattr(value, "__wrapped__", getattr(value, "func", value))  # decorators; partial
    if not isinstance(value, types.FunctionType | types.MethodType | type):
        value = vars(type(value)).get("__call__")  # an object that is called like a function
    value = getattr(value, "__func__", value)
    home = getattr(value, "__module__", None) or ""
    return value if isinstance(value, types.FunctionType) and home.partition(".")[0] not in _ELSEWHERE else None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _imports(code: types.CodeType, package: str) -> bool:
    last = package.rpartition(".")[2]
    if package in code.co_names or any(isinstance(c, str) and package in c and " " not in c for c in code.co_consts):
        return True
    top = package.partition(".")[0]
    return last in code.co_names and any(name == top for name in code.co_names)


def _reached(function: types.FunctionType) -> Iterator[Any]:
    """What the names in `function` and the code nested in it stand for, and what it closed over."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        yield value
        if isinstance(value, types.ModuleType) and value.__name__ == "parallel_lab":
            yield from (getattr(value, inner) for inner in names if inner in vars(value))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet: a recursive inner function
            continue
