"""Every exercise of the course, by name, in the order of the chapters."""

from parallel_lab.course.exercises import all_to_all, ring_all_reduce, ring_shift, sum_of_ranks, tree_broadcast

_MODULES = (sum_of_ranks, tree_broadcast, ring_all_reduce, all_to_all, ring_shift)
EXERCISES = {module.EXERCISE.name: module.EXERCISE for module in _MODULES}

__all__ = ["EXERCISES"]
