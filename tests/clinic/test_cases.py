"""All cases: the cause shows in the broken run and not in the mended one; a program is short and names no cause.

Each case is run by the ward on real ranks.
"""

import inspect

import pytest

from parallel_lab.clinic.cases import CASES
from parallel_lab.clinic.chart import Unhealthy
from parallel_lab.clinic.ward import SEED, judge, run_case

NO_END = (13, 18)  # their broken jobs hang


@pytest.mark.parametrize("number", CASES)
def test_the_sign_is_there_and_goes_away(number):
    """The mended job runs on other data, and where the case allows it on another number of ranks."""
    case = CASES[number]
    broken = run_case(case)
    assert bool(broken.error) == (number in NO_END) and case.sign(broken)
    with pytest.raises(Unhealthy):
        judge(case, broken)
    mended = run_case(case, case.mended, ranks=min((*case.also, case.ranks)), seed=SEED + 4)
    judge(case, mended)
    assert not case.sign(mended)


@pytest.mark.parametrize("number", CASES)
def test_a_program_is_short_and_does_not_name_its_cause(number):
    case = CASES[number]
    assert len(inspect.getsource(case.job).splitlines()) <= 26
    assert case.cause not in case.title + case.complaint + inspect.getsource(case.job)
