"""The coding tasks of an interview say in Chinese what the chapters say: the same code, formulas and numbers."""

import re

import pytest

from parallel_lab.course.tasks import tasks
from parallel_lab.course.terms import read
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.interview.coding import said_in_chinese, stub

GAPS = {task.name: task for task in tasks().values() if task.gap}
LEADS_TO = re.compile(r"\n\n(It leads to|The longer exercise|The chapter's exercise).*", re.DOTALL)
KEPT = re.compile(r"`[^`]+`|\$[^$]+\$|(?<![\w-])\d[\d,.]*(?<![,.])")


def same(english, chinese):
    assert set(KEPT.findall(english)) == set(KEPT.findall(chinese))
    assert re.search(r"[\u4e00-\u9fff]", chinese)


def test_every_gap_is_there_and_no_other():
    assert set(read("gaps_zh", "interview")) == set(GAPS)


@pytest.mark.parametrize("name", GAPS)
def test_both_say_the_same(name):
    english, code = stub(GAPS[name])
    chinese, same_code = stub(GAPS[name], "zh")
    assert code == same_code
    same(LEADS_TO.sub("", english), chinese)
    same(EXERCISES[name].solution_note, said_in_chinese(name)["note"])
