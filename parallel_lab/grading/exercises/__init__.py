"""Every exercise of the course, by name, in the order of the chapters."""

from importlib import import_module

_NAMES = (
    *("sum_of_ranks",),
    *("step_budget",),
    *("tree_broadcast", "ring_all_reduce", "all_to_all", "ring_shift"),
    *("training_framework", "bucketed_ddp"),
    *("asynchronous_sgd", "local_sgd"),
    *("parameter_server",),
    *("sharded_optimizer", "gathered_layer"),
)
EXERCISES = {name: import_module(f"{__name__}.{name}").EXERCISE for name in _NAMES}
