"""Each exercise has a title in Chinese, and each unit that is a word its Chinese one."""

import re
from random import Random

import pytest

from parallel_lab.course import page
from parallel_lab.course.drills import problems
from parallel_lab.course.spoken import title_in, unit_in
from parallel_lab.course.tasks import tasks
from parallel_lab.course.terms import read
from parallel_lab.interview.atoms import atoms

SAME = {"", "%", "h", "s", "ms", "t", "nats", "GB", "MB", "kB", "KiB", "PB", "kJ", "GB/s"}


def test_each_exercise_has_a_title():
    assert set(read("tasks_zh")) == set(tasks())
    for one in tasks().values():
        assert re.search("[\u4e00-\u9fff]", title_in(one.name, one.title, "zh")), one.name
        assert title_in(one.name, one.title, "en") == one.title


def test_each_drill_has_a_title():
    assert set(read("drill_titles_zh")) == set(problems())
    for one in problems().values():
        assert re.search("[\u4e00-\u9fff]", title_in(one.name, one.title, "zh")), one.name


def test_the_titles_are_those_of_the_glossary():
    written = str([read("tasks_zh"), read("drill_titles_zh")])
    assert {word for row in read("glossary") for word in row["not"] if word in written} == set()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_units(language):
    units = {one.draw(Random(1)).unit for one in problems().values()}
    units |= {one.unit for one in atoms().values() if one.value is not None}
    assert {unit for unit in units if unit_in(unit, language) == unit} - SAME == (
        units - SAME if language == "en" else set()
    )


def test_a_list_in_a_chinese_list_stays_one():
    html = page.markdown("- 有哪些？\n    - 三类。\n    - 两类。\n- 一句\n分两行。").html
    assert html.count("<ul>") == 2 and html.count("<li>") == 4 and "一句分两行" in html
