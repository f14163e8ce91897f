"""The first pages say in Chinese what they say in English: the same tables, formulas, code, numbers and links."""

import re
from collections import Counter

import pytest

from parallel_lab import first_page
from parallel_lab.course.typed import UnknownName
from parallel_lab.interview import stored
from parallel_lab.interview.stored import Picture, chapters

LINK = re.compile(r"\]\(([^)]*)\)")
MATH = re.compile(r"\$\$.+?\$\$|(?<!\\)\$[^$]+\$", re.DOTALL)
CODE = re.compile(r"`[^`]+`")
NUMBER = re.compile(r"(?<![\w-])\d[\d,.]*(?<![,.])")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def text_of(chapter, language):
    return "\n".join(part for part in stored.first_page(chapter, language)[1] if isinstance(part, str))


def kept(text):
    """What no language changes: targets of links, formulas, code, numbers, the cells in each row of a table."""
    text, found = LINK.sub("]", text), {"links": Counter(LINK.findall(text))}
    for name, pattern in (("formulas", MATH), ("code", CODE)):
        text, found[name] = (
            pattern.sub(" ", text),
            Counter(re.sub(r"\\text\{[^}]*\}", "", one) for one in pattern.findall(text)),
        )
    found["numbers"] = set(NUMBER.findall(text))
    found["rows"] = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    return found


@pytest.mark.parametrize("chapter", chapters())
def test_both_say_the_same(chapter):
    assert kept(text_of(chapter, "zh")) == kept(text_of(chapter, "en"))


@pytest.mark.parametrize("chapter", chapters())
def test_the_pictures_stand_where_they_stood(chapter):
    english, chinese = (stored.first_page(chapter, language)[1] for language in ("en", "zh"))
    pictures = [part for part in chinese if isinstance(part, Picture)]
    assert [one.png for one in pictures] == [part.png for part in english if isinstance(part, Picture)]
    assert all(CHINESE.search(one.alt) for one in pictures)
    last = [isinstance(page[-1], str) and bool(page[-1]) for page in (english, chinese)]
    assert last[0] == last[1], "a caption"


def test_in_a_cell_and_in_a_terminal():
    shown = first_page("03", "zh")
    assert 'lang="zh"' in shown._repr_html_() and "<math" in shown._repr_html_() and "no_sync" in repr(shown)
    assert CHINESE.search(repr(shown)) and not CHINESE.search(repr(first_page("03_data_parallel", "en")))
    with pytest.raises(UnknownName, match="no chapter '93'"):
        first_page("93")
    with pytest.raises(ValueError, match="no language 'fr'"):
        first_page("03", "fr")
