"""Terms, asked both ways: each has a question in both languages, and a word that is not said is named."""

from itertools import pairwise

import pytest

from parallel_lab.course.chapters import TITLES
from parallel_lab.course.terms import read
from parallel_lab.course.typed import UnknownName
from parallel_lab.interview.vocabulary import judged, terms


def test_each_term_that_differs_is_asked_both_ways():
    found = {one.key: one for one in terms()}
    assert len(found) == 2 * sum(row["en"] != row["zh"] for row in read("glossary"))
    there, back = found["term/straggler/zh"], found["term/straggler/en"]
    assert (there.answer, back.answer) == ("慢节点", "straggler")
    assert "straggler" in there.ask and "straggler" in there.zh and "慢节点" in back.ask
    assert all(one.chapter in TITLES and one.kind == "term" for one in found.values())


@pytest.mark.parametrize(
    ("key", "given", "right"),
    [
        ("term/bandwidth/zh", " 带宽 ", True),
        ("term/bandwidth/en", "Bandwidth", True),
        ("term/to shard; shard/en", "shard", True),
        ("term/synchronous (BSP)/zh", "同步", True),
        ("term/GPU memory/en", "gpu-memory", True),
        ("term/mean time between failures (MTBF)/en", "MTBF", True),
        ("term/precision of a classifier/en", "precision", True),
        ("term/synchronous (BSP)/en", "BSP", False),
        ("term/bandwidth/zh", "频宽", True),
        ("term/bandwidth/en", "latency", False),
    ],
)
def test_a_typed_term(key, given, right):
    found, said = judged(key, given)
    assert found == right and said


def test_a_word_that_is_not_said_is_named():
    assert judged("term/bandwidth/zh", "频宽", "zh") == (True, "“频宽”也听得懂；本课程说“带宽”。")
    assert "The course says “bandwidth”" in judged("term/bandwidth/en", "latency")[1]
    with pytest.raises(UnknownName, match="there is no term"):
        judged("term/nothing/zh", "a")


def test_the_other_way_is_not_asked_at_once():
    """It would be given away."""
    names = [one.key.rpartition("/")[0] for one in terms()]
    assert all(one != other for one, other in pairwise(names))
