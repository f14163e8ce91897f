"""`parameter_server`: servers with another bound, or another step, fail with their own messages."""

import re
import sys

import cloudpickle
import pytest
from grading import assert_fails, assert_one_says
from server_parts import busy, server

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def fastest_other(clock, counts, worker):
    others = [clock[rank] for rank, count in enumerate(counts) if rank != worker and clock[rank] < count]
    return max(others, default=max(counts))


ignores_the_bound = server(lambda clock, counts, worker, bound: True)


always_in_step = server(lambda clock, counts, worker, bound: clock[worker] <= min(busy(clock, counts)))


one_step_too_strict = server(
    lambda clock, counts, worker, bound: clock[worker] - max(bound - 1, 0) <= min(busy(clock, counts))
)


one_step_too_far = server(lambda clock, counts, worker, bound: clock[worker] - bound - 1 <= min(busy(clock, counts)))


bound_on_the_fastest = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= fastest_other(clock, counts, worker)
)


never_finished_counted = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= min(clock[rank] for rank, c in enumerate(counts) if c)
)


without_momentum = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= min(busy(clock, counts)), momentum_here=False
)


averaged_gradients = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= min(busy(clock, counts)),
    step=lambda lr, counts, servers: lr / (len(counts) - servers),
)


# Which of the two fast workers goes too far first is chance.
TOO_FAR = re.compile("bound 0: before rank 1 had finished its gradient 1, rank [23] had begun")
CHEATS = {
    "ignores_the_bound": (ignores_the_bound, TOO_FAR),
    "always_in_step": (
        always_in_step,
        "bound 2: before rank 3 had finished its gradient 1, rank 2 finished 2; the bound allows 4",
    ),
    "one_step_too_strict": (
        one_step_too_strict,
        "bound 2: before rank 3 had finished its gradient 1, rank 2 finished 3; the bound allows 4",
    ),
    "one_step_too_far": (one_step_too_far, TOO_FAR),
    "bound_on_the_fastest": (bound_on_the_fastest, TOO_FAR),
    "never_finished_counted": (never_finished_counted, "the ranks did not finish"),
    "without_momentum": (without_momentum, "at weights that server 0 never had"),
    "averaged_gradients": (averaged_gradients, "at 3 ranks: rank 1 computed its gradient 1 at weights that server 0"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_fails_with_its_message(name):
    assert_one_says("parameter_server", *CHEATS[name], timeout=3 if name == "never_finished_counted" else 10)


def test_a_cheat_does_not_pass():
    assert_fails("parameter_server", ignores_the_bound, "the bound allows 2")
