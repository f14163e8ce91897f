"""Every exercise of the course, by name, in the order of the chapters."""

from parallel_lab.grading.exercises import (
    all_to_all,
    asynchronous_sgd,
    bucketed_ddp,
    gathered_layer,
    local_sgd,
    parameter_server,
    ring_all_reduce,
    ring_shift,
    sharded_optimizer,
    sum_of_ranks,
    training_framework,
    tree_broadcast,
)

_MODULES = (
    *(sum_of_ranks,),
    *(tree_broadcast, ring_all_reduce, all_to_all, ring_shift),
    *(training_framework, bucketed_ddp),
    *(asynchronous_sgd, local_sgd),
    *(parameter_server,),
    *(sharded_optimizer, gathered_layer),
)
EXERCISES = {module.EXERCISE.name: module.EXERCISE for module in _MODULES}

__all__ = ["EXERCISES"]
