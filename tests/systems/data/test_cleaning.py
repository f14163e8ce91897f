"""Cleaning against ftfy, the rules of filters one by one, and languages on sentences that nobody learned from."""

import unicodedata
from collections import Counter

import ftfy
import pytest
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.model.data import share
from parallel_lab.systems.data import C4, GOPHER, Languages, clean, cleaning, corpus, filters
from parallel_lab.systems.data.samples import LEARN, TEST

pytestmark = pytest.mark.usefixtures("by_value")
TEXTS = ("café", "naïve “quotes” – dash", "価格は€5", "…emoji 😀", "Größe", "plain ASCII", "¿Qué? ½ ©")


def misread(text, encoding):
    """UTF-8 that somebody read in another encoding; bytes that cp1252 leaves undefined become controls."""
    return "".join(bytes([byte]).decode(encoding, errors="ignore") or chr(byte) for byte in text.encode())


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_mojibake_is_mended_as_ftfy_mends_it_once_and_twice(encoding):
    for text in TEXTS:
        broken = misread(text, encoding)
        assert cleaning.repair_mojibake(broken) == ftfy.fix_encoding(broken) == text
        assert cleaning.repair_mojibake(misread(broken, encoding)) == text
        assert cleaning.repair_mojibake(text) == text  # what is right stays
        assert cleaning.repair_mojibake(f"日本 {broken}") == f"日本 {text}"  # a line may be half broken


def test_an_overlong_form_is_no_character():
    assert cleaning.repair_mojibake("à\x80\x80") == "à\x80\x80"


def test_controls_go_as_in_ftfy_and_newlines_stay():
    text = "a\x00b\x07c\td\ne\x7f\ufeff\u206af"
    assert cleaning.drop_controls(text) == ftfy.fixes.remove_control_chars(text) == "abc\td\nef"


def test_entities_become_characters_unless_they_lack_their_end():
    assert cleaning.unescape("&eacute;&#228;&#x4e2d; ?a=1&copy=2 &nosuch;") == "éä中 ?a=1&copy=2 &nosuch;"


def test_the_steps_in_their_order():
    # Half of a broken character is an entity, so mojibake is mended after entities.
    assert clean("caf&Atilde;©  \r\n\r\n\r\n\r\n ende\u0301 ") == "café\n\nendé"
    assert clean("x = 1:\n    y  =  2", indents=True) == "x = 1:\n    y = 2"
    for text in corpus.paragraphs()[:300]:
        assert clean(clean(text)) == clean(text)
        assert unicodedata.is_normalized("NFC", clean(text))


def test_boilerplate_is_what_many_documents_have():
    pages = [f"Accept cookies\nText number {n}.\n\nAll rights reserved" for n in range(5)]
    counts = cleaning.line_counts(pages[:2]) + cleaning.line_counts(pages[2:])  # of two ranks
    assert [cleaning.drop_boilerplate(page, counts, most=2).strip() for page in pages] == [
        f"Text number {n}." for n in range(5)
    ]


def test_languages_of_sentences_that_were_not_learned():
    which = Languages()
    lines = [(name, line) for name, text in TEST.items() for line in text.split("\n")]
    assert len(lines) == 25
    assert [which(line) for _, line in lines] == [name for name, _ in lines]
    assert {which(text) for text in corpus.documents().values()} == {"en"}


def test_a_profile_counts_grams_and_breaks_ties_by_the_alphabet():
    assert list(filters.profile("ab ab", longest=2)) == ["_a", "a", "ab", "b", "b_"]
    assert filters.distance({"a": 0, "z": 1}, {"a": 1, "b": 0}) == 1 + 2


PROSE = "The harbor wakes before the town and the lamps of it are still burning. " * 6
BROKEN = {
    "50 to 100,000 words": "the end of it",
    "mean word of 3 to 10 characters": "the of a I " * 60,
    "at most one # or ... in 10 words": PROSE + " # " * 30,
    "at most 90 % of lines are bullets": "\n".join(f"- {PROSE} {n}" for n in range(3)),
    "at most 30 % of lines end in ...": "\n".join(f"{PROSE} {n} ..." for n in range(3)),
    "80 % of words have a letter": PROSE + " 1234" * 60,
    "two stop words": "Fischer tragen ihre Netze zu den Booten " * 10,
    "at most 30 % repeated lines": "\n".join([PROSE] * 3),
    "three sentences": "One. Two, and that is all",
    "no {": "if (a) { b } " + PROSE,
    "no lorem ipsum": "Lorem ipsum dolor. " + PROSE,
    "no javascript": "Please enable JavaScript. " + PROSE,
}


@pytest.mark.parametrize("name", [*GOPHER, *C4])
def test_each_rule_drops_its_text_and_keeps_prose(name):
    rule = (GOPHER | C4)[name]
    assert rule(PROSE)
    assert not rule(BROKEN[name])


def test_rules_for_english_drop_other_languages():
    assert filters.sieve(LEARN.values()).first == Counter({"two stop words": 3, "50 to 100,000 words": 1})


def sieved(texts):
    rank, world = dist.get_rank(), dist.get_world_size()
    return filters.sieve_over_ranks(texts[share(len(texts), rank, world)])


def test_counts_over_ranks_are_those_of_one_process():
    texts = list(corpus.paragraphs()[:301])
    alone = filters.sieve(texts)
    run = launch(sieved, texts, ranks=3)
    assert [text for result in run.results for text in result.kept] == alone.kept
    assert all(result[1:] == alone[1:] for result in run.results)
    assert sum(alone.first.values()) + len(alone.kept) == len(texts)
