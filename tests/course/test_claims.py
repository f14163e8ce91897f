"""Every question has a card with evidence; every claim has a verdict, a reason in both languages and a link."""

import re
from pathlib import Path

from parallel_lab.course.anchors import heading_above
from parallel_lab.course.claims import FILE, VERDICTS, claims, judged, text
from parallel_lab.course.questions import card, index

ROOT = Path(__file__).resolve().parents[2]


def test_every_question_has_a_card_and_a_cell_that_proves_it():
    cards = [card(question) for question in index().values()]
    assert [one.question.id for one in cards if one.status != "ready"] == []
    assert [one.question.id for one in cards if heading_above(*one.evidence.split("#")) is None] == []


def test_every_claim_is_judged_in_both_languages():
    assert [one.question.id for one in judged()] == [name for name, one in index().items() if one.test]
    assert len(judged()) == 20 and {one.verdict for one in judged()} <= set(VERDICTS)
    assert all(re.search("[\u4e00-\u9fff]", one.zh) and one.why.isascii() for one in judged())


def test_the_page_of_claims_is_what_is_written_and_its_links_lead_to_chapters():
    written = (ROOT / FILE).read_text(encoding="utf-8")
    assert written == text(), "run python -m parallel_lab.course.claims"
    links = re.findall(r"\]\((notebooks/\S+\.ipynb)\)", written)
    assert len(links) == 20 and all((ROOT / link).is_file() for link in links)
    assert FILE in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_terminal_and_a_cell_show_all_of_them():
    page = claims()
    assert all(one.question.test in repr(page) and one.verdict in page._repr_html_() for one in judged())
