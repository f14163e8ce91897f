"""The table of frameworks: whole, dated, and asked what it lacks for a scheme."""

import re

import pytest

from parallel_lab.planner import Scheme, frameworks
from parallel_lab.planner.scheme import CHOICES

BY_NAME = {framework.name: framework for framework in frameworks()}


@pytest.mark.parametrize("row", frameworks(), ids=lambda row: row.name)
def test_a_row_is_whole_and_its_source_has_a_year(row):
    assert set(row.axes) <= {"pp", "tp", "cp", "ep"} and set(row.zero) <= set(CHOICES["zero"])
    assert re.search(r"\b20\d\d\b", row.source) and 2010 < row.since < 2027 and row.pick and row.runs_on


def test_no_framework_stands_twice():
    assert len(BY_NAME) == len(frameworks()) >= 10


@pytest.mark.parametrize("row", frameworks(), ids=lambda row: row.name)
def test_a_rank_alone_lacks_nothing(row):
    assert row.lacks(Scheme()) == []


@pytest.mark.parametrize(
    ("name", "scheme", "lacking"),
    [
        ("PyTorch FSDP2", Scheme(dp=8, zero=3), []),
        ("PyTorch FSDP2", Scheme(dp=8, pp=2, zero=3), ["pp"]),
        ("PyTorch FSDP2", Scheme(dp=8, tp=2, zero=1), ["ZeRO-1"]),
        ("PyTorch FSDP2", Scheme(dp=8), ["plain data parallelism"]),
        ("torchtitan", Scheme(dp=8, pp=4, tp=2, cp=2, ep=4, zero=3), []),
        ("Megatron-LM", Scheme(dp=8, pp=4, tp=8, zero=1), []),
        ("DeepSpeed", Scheme(dp=8, pp=4, zero=2), ["ZeRO-2 beside pp"]),
        ("DeepSpeed", Scheme(dp=8, tp=4, zero=3), ["ZeRO-3 beside tp"]),
        ("Alpa", Scheme(dp=8, cp=2, ep=4), ["cp"]),
    ],
)
def test_what_a_framework_lacks_for_a_scheme(name, scheme, lacking):
    assert BY_NAME[name].lacks(scheme) == lacking
