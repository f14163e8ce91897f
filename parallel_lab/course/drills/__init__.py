"""The drills, a module a chapter; each registers its problems when it is loaded. `practice.drill` asks them."""

from importlib import import_module
from pkgutil import iter_modules

from parallel_lab.course.drills.engine import PROBLEMS

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["PROBLEMS"]
