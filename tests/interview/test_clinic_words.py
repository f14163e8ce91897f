"""The clinic speaks Chinese in Chinese interviews: every cause and every case."""

import re

import pytest

from parallel_lab.clinic import CASES, CAUSES
from parallel_lab.interview.clinic_words import chinese, of_case, of_cause
from parallel_lab.interview.words import say

CHINESE = re.compile("[\u4e00-\u9fff]")


def test_every_cause_and_case_has_its_chinese_and_no_other():
    assert set(chinese()["causes"]) == set(CAUSES)
    assert set(chinese()["cases"]) == set(CASES)


@pytest.mark.parametrize("name", CAUSES)
def test_a_cause(name):
    for what in ("signature", "cure"):
        assert CHINESE.search(of_cause(CAUSES[name], what, "zh"))
        assert of_cause(CAUSES[name], what, "en") == getattr(CAUSES[name], what)
    assert say(f"clinic.{CAUSES[name].symptom.replace(' ', '-')}", "en") == CAUSES[name].symptom


@pytest.mark.parametrize("number", CASES)
def test_a_case_has_the_same_numbers(number):
    for what in ("title", "complaint", "evidence"):
        english, said = (of_case(CASES[number], what, language) for language in ("en", "zh"))
        assert CHINESE.search(said)
        assert set(re.findall(r"\d[\d.,]*\d|\d{2,}", english)) <= set(re.findall(r"\d[\d.,]*\d|\d{2,}", said))
