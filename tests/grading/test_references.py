"""The look at learner code finds the usual ways to reach a reference, and leaves honest code alone."""

import functools

import parallel_lab
import parallel_lab.collectives
from parallel_lab import collectives
from parallel_lab.course.sources import uses

PACKAGE = "parallel_lab.collectives"


def honest(tensor):
    """Names collectives, and reaches none: parallel_lab.collectives."""
    return helper(tensor)


def helper(tensor):
    return honest(tensor) if tensor else sum([tensor])


def by_module(tensor):
    return collectives.ring(tensor)


def by_package(tensor):
    return parallel_lab.collectives.ring(tensor)


def by_helper(tensor):
    return by_module(tensor)


def by_inner_import(tensor):
    from parallel_lab.collectives import ring  # noqa: PLC0415

    return ring(tensor)


def by_name(tensor):
    return __import__("parallel_lab.collectives").ring(tensor)


def by_closure():
    module = collectives
    return lambda tensor: module.ring(tensor)


class Caller:
    def __call__(self, tensor):
        return collectives.ring(tensor)

    def method(self, tensor):
        return collectives.ring(tensor)


def by_class(tensor):
    return Caller().method(tensor)


def test_ways_to_the_reference_are_found():
    ways = [by_module, by_package, by_helper, by_inner_import, by_name, by_closure(), by_class, Caller().method]
    assert [fn for fn in ways if not uses(fn, PACKAGE)] == []
    assert uses(functools.partial(by_module, 1), PACKAGE)
    assert uses(Caller(), PACKAGE)
    assert uses(by_helper, PACKAGE) == "by_module uses parallel_lab.collectives"


def test_honest_code_is_left_alone():
    assert uses(honest, PACKAGE) == ""
    assert uses(len, PACKAGE) == ""
