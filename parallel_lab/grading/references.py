"""Does an answer reach for what it is meant to build? One list of what may not be used, and the two looks for it.

What an answer would take along to the ranks names every module, class and function that it uses, in closures and
nested functions too. What it gets at another way (by `exec`, through `parallel_lab.…`) is loaded in the rank then.
"""

import pickletools
import sys
from collections.abc import Callable, Iterable

from parallel_lab.runtime.wire import dumps

# Every other room of the package is a technique, and so an answer.
_NO_TECHNIQUES = frozenset(
    {
        "compat",
        "plan",
        "trace",
        "network",
        "simulate",
        "view",
        "runtime",
        "model",
        "agree",
        "clinic",
        "grading",
        "course",
        "interview",
        "cli",
    }
)
_READY_MADE = frozenset(
    {
        "parallel_lab.model.formulas",
        *("DistributedDataParallel", "ZeroRedundancyOptimizer", "FullyShardedDataParallel", "fully_shard"),
        *("distribute_tensor", "distribute_module", "DTensor"),
        *("GradScaler", "ShardedGradScaler"),
        *("torch.nn.utils.prune", "global_unstructured", "l1_unstructured", "ln_structured"),
        *("parallelize_module", "ColwiseParallel", "RowwiseParallel", "SequenceParallel", "loss_parallel"),
    }
)


def technique(module: str) -> str:
    """The room of techniques that `module` belongs to, `parallel_lab.collectives`; empty if it is none."""
    package, *rooms = module.split(".")[:2]
    return f"{package}.{rooms[0]}" if package == "parallel_lab" and rooms and rooms[0] not in _NO_TECHNIQUES else ""


def reference_in(fn: Callable) -> str:
    """Which reference `fn` reaches for, in a sentence; empty if none."""
    try:
        names = [argument for _, argument, _ in pickletools.genops(dumps(fn)) if isinstance(argument, str)]
    except Exception:  # the launch says what cannot be copied
        return ""
    used = next(filter(None, (name if name in _READY_MADE else technique(name) for name in names)), "")
    return f"{getattr(fn, '__name__', 'the answer')} uses {used}" if used else ""


def loaded(modules: Iterable[str] = ()) -> list[str]:
    """The rooms of techniques among the modules of this process."""
    return sorted(set(filter(None, map(technique, modules or sys.modules))))
