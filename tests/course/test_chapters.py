from parallel_lab.course.chapters import TITLES, chapter_map
from parallel_lab.course.questions import index
from parallel_lab.grading.exercises import EXERCISES


def test_every_question_and_exercise_belongs_to_a_chapter_of_the_map():
    shown = chapter_map().rows
    assert sum(row[3] for row in shown) == len(index())
    assert sum(row[4] for row in shown) == len(EXERCISES)


def test_a_chapter_is_a_link_once_its_notebook_is_there(tmp_path):
    (tmp_path / "01_why.ipynb").write_text("{}")
    (tmp_path / "notes.ipynb").write_text("{}")
    found = chapter_map(tmp_path)
    assert [row[2] for row in found.rows if row[2]] == ["01_why.ipynb"]
    assert '<a href="01_why.ipynb">01 · ' in found._repr_html_()
    assert found._repr_html_().count("(to come)") == len(TITLES) - 1
    assert repr(found).count("(to come)") == len(TITLES) - 1
