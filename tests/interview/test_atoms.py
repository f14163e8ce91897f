"""Atoms: every card gives its own, in both languages, under keys that stay."""

import pytest

from parallel_lab.course.questions import ask, index
from parallel_lab.course.typed import UnknownName
from parallel_lab.interview.atoms import KINDS, atom, atoms, atoms_of, follow_ups


def test_every_card_gives_its_question_and_each_follow_up():
    for name in index():
        card, found = ask(name), atoms_of(name)
        assert found[0].key == f"{name}/definition" and found[0].answer == card.sections["30 seconds"]
        bold = [line for line in card.sections["Follow-ups"].splitlines() if line.startswith("**")]
        assert [one.kind for one in found].count("follow-up") == len(bold) == len(follow_ups(card)) > 0


def test_atoms_are_whole_and_known_by_their_keys():
    for key, one in atoms().items():
        assert key == one.key and one.kind in KINDS and one.chapter == index()[one.card].chapter
        assert all((one.ask, one.zh, one.answer, one.answer_zh, one.evidence)), key
        assert one.asked("zh") == one.zh and one.answered("en") == one.answer
    assert atom("E5/follow-up-1").ask == "Why 34 % and not 25 %?" and "11" in atom("E5/follow-up-1").answer_zh


def test_an_unknown_atom_names_the_nearest():
    with pytest.raises(UnknownName, match="there is no atom 'E5/formulae'"):
        atom("E5/formulae")
