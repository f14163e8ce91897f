"""The badge: every count is one that the progress file holds, help is told, and what is not proven is said."""

import re

import pytest

from parallel_lab.course import progress
from parallel_lab.course.tasks import tasks
from parallel_lab.interview import record
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.badge_page import LIMITS, badge, write_badge
from parallel_lab.interview.words import words


def solved():
    return {one.task.name: one for one in record.solved_tasks(progress.read())}


def test_an_empty_file_claims_nothing():
    said = repr(badge())
    assert "Nothing is solved yet." in said and "Every exercise" not in said and "What this page does not prove" in said


def test_passed_at_once_with_hints_and_after_failures_are_told_apart(clock):
    progress.record_exercise("ring_shift", 1.0)
    progress.record_hint("ring_all_reduce", 2)
    progress.record_exercise("ring_all_reduce", 1.0)
    progress.record_exercise("tree_broadcast", 0.5, failed=True)
    clock.forward(days=1)
    progress.record_exercise("tree_broadcast", 1.0)
    progress.record_exercise("all_to_all", 0.4, failed=True)
    known = solved()
    assert known.keys() == {"ring_shift", "ring_all_reduce", "tree_broadcast"}
    assert {name for name, one in known.items() if one.clean} == {"ring_shift"}
    assert known["ring_all_reduce"].hints == 2 and known["tree_broadcast"].checks == 2
    assert known["ring_shift"].on == "2026-11-28" and known["tree_broadcast"].on == "2026-11-29"
    said = " ".join(repr(badge()).split())
    there = sum(not task.gap for task in tasks().values())
    assert f"{len([n for n in known if not tasks()[n].gap])} {there} 1 passed at the first full check" in said
    assert "from 2026-11-28 to 2026-11-29, on 2 different days" in said


def test_a_solution_that_was_looked_at_is_told(clock):
    progress.record_solution("ring_shift")
    progress.record_exercise("ring_shift", 1.0)
    progress.record_exercise("ring_all_reduce", 1.0)
    progress.record_solution("ring_all_reduce")
    progress.record_solution("ring_shift")
    known = solved()
    assert known["ring_shift"].solution == "before" and not known["ring_shift"].clean
    assert known["ring_all_reduce"].solution == "after" and known["ring_all_reduce"].clean
    said = repr(badge())
    assert "before it was solved" in said and "afterwards" in said and "solved in 1" in said


def test_drills_self_checks_and_atoms_are_counted(clock):
    progress.record_drill("ring-bytes", right=False)
    progress.record_drill("ring-bytes")
    progress.record_drill("ring-bytes")
    progress.record_quiz("02_collectives_and_topologies", 1.0)
    progress.record_review("C7/definition", 3, "self")
    progress.record_review("F9/definition", 3, "drill")
    progress.record_review("F9/definition", 1, "self")
    entries = progress.read()
    assert record.drills_done(entries)[0] == 1 and record.drills_done(entries)[2:] == (2, 1)
    assert record.quizzes_done(entries)[0] == 1
    assert record.atoms_known(entries) == (1, len(atoms()), 3, 2)
    assert "2 right answers" in repr(badge())


def test_mock_interviews_stand_there_with_their_result():
    progress.record_exercise("ring_shift", 1.0)
    assert "No mock interview was taken." in repr(badge())
    turns = [{"result": 0.5}, {"result": 1.0}]
    one = {"role": "researcher", "minutes": 15, "finished": True, "turns": turns}
    progress.record_interview("2026-11-28T10:00:00+00:00", one)
    progress.record_interview("2026-11-29T10:00:00+00:00", one | {"finished": False})
    progress.record_interview("2026-11-30T10:00:00+00:00", one | {"turns": []})
    said = repr(badge())
    assert said.count("researcher") == 2 and "75 %" in said and "75 %, broken off" in said


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_whole_and_in_its_language(language, tmp_path):
    progress.record_exercise("ring_shift", 1.0)
    write_badge(tmp_path / "badge.html", "Li <Wei>", language)
    text = (tmp_path / "badge.html").read_text(encoding="utf-8")
    assert f'<html lang="{language}">' in text and "Li &lt;Wei&gt;" in text and "<script" not in text
    assert "http" not in re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL)
    assert all(words()[f"badge.not-{n}"][language] in text for n in range(1, LIMITS + 1))
