from parallel_lab.course.chapters import TITLES, chapter_map, link_to
from parallel_lab.course.questions import index
from parallel_lab.course.tasks import tasks
from parallel_lab.grading.exercises import EXERCISES


def test_every_question_and_exercise_belongs_to_a_chapter_of_the_map():
    head, *lines = repr(chapter_map()).splitlines()
    asked, solved = head.index("interview"), head.index("exercises")
    assert sum(int(line[asked:solved].strip() or 0) for line in lines) == len(index())
    assert sum(int(line[solved:].strip() or 0) for line in lines) == len(EXERCISES)


def test_a_chapter_is_a_link_once_its_notebook_is_there(tmp_path):
    (tmp_path / "01_why.ipynb").write_text("{}")
    (tmp_path / "notes.ipynb").write_text("{}")
    found = chapter_map(tmp_path)
    assert found._repr_html_().count("<a href=") == 1 and '<a href="01_why.ipynb">01 · ' in found._repr_html_()
    assert found._repr_html_().count("(to come)") == len(TITLES) - 1
    assert repr(found).count("(to come)") == len(TITLES) - 1


def test_an_exercise_in_steps_is_found_at_its_task():
    """Above its first step, so that what it needs is seen; see `Task.anchor`."""
    assert link_to(tasks()["step_budget"]).endswith("#cell-id=step-budget-task")
    assert link_to(tasks()["ring_all_reduce"]).endswith("#cell-id=ring-all-reduce-task")
    assert not [task for task in tasks().values() if "step-1" in task.anchor]
