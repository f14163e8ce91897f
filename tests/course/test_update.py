"""Bringing the course to the learner: what he has not changed is replaced, what he has changed stays."""

import json
import re
import subprocess
import sys

import pytest
from ipykernel.ipkernel import IPythonKernel

from parallel_lab.course import update
from parallel_lab.course.update import CannotPull, bring, pull

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
TRUST = update._trust
CHAPTER, TASK = "notebooks/03_data.ipynb", "exercises/03_data.ipynb"


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))  # where notebooks are signed
    monkeypatch.setattr(update, "_trust", lambda notebooks: None)  # which takes two seconds
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")


def git(folder, *arguments):
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(path, *sources, output=""):
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": 1 if output else None, "source": [one],
         "outputs": [{"output_type": "stream", "name": "stdout", "text": [output]}] if output else []}
        for n, one in enumerate(sources)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))


def sources(path):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


@pytest.fixture
def course(tmp_path):
    root = tmp_path / "course"
    write(root / CHAPTER, "a = 1", "b = 2")
    write(root / TASK, "stub")
    (root / ".gitignore").write_text("/work/\n")
    return root


@pytest.fixture
def clone(course, tmp_path):
    git(course, "init", "-q")
    commit(course)
    git(tmp_path, "clone", "-q", str(course), "mine")
    bring(tmp_path / "mine")
    return tmp_path / "mine"


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "next")


def test_all_is_copied_once_and_signed_and_the_package_is_linked(course, monkeypatch):
    monkeypatch.setattr(update, "_trust", TRUST)
    (line,) = bring(course)
    assert line.startswith("work/ is yours")
    assert (course / "work" / TASK).read_text() == (course / TASK).read_text()
    assert (course / "work/parallel_lab").is_symlink()
    assert bring(course) == []
    (course / "work" / TASK).unlink()
    assert bring(course) == [f"new: work/{TASK}"]
    trusted = "import nbformat.sign as s, nbformat, sys; n = nbformat.read(sys.argv[1], 4)"
    trusted += "; sys.exit(not s.NotebookNotary().check_signature(n))"
    assert subprocess.run([sys.executable, "-c", trusted, str(course / "work" / CHAPTER)]).returncode == 0


def test_what_was_only_run_is_replaced(course):
    bring(course)
    write(course / "work" / CHAPTER, "a = 1", "b = 2", "  ", output="of mine")
    write(course / CHAPTER, "a = 1", "b = 3")
    assert bring(course) == [f"brought up to date: work/{CHAPTER}"]
    assert sources(course / "work" / CHAPTER) == ["a = 1", "b = 3"]


def test_what_was_changed_stays_and_the_new_one_lies_beside_it(course):
    bring(course)
    mine, beside = course / "work" / CHAPTER, course / "work/notebooks/03_data.new.ipynb"
    write(mine, "a = 1", "my line")
    write(course / CHAPTER, "a = 1", "b = 3")
    line, counted, changed, advice = bring(course)
    assert counted == "  Against the version you started from: 0 cells new, 1 changed, 0 gone."
    assert changed == "    changed: code cell c1"
    assert line == f"work/{CHAPTER} stays as you changed it; the new version lies beside it: 03_data.new.ipynb"
    assert advice.startswith("Compare each .new file with yours") and "plab update --diff" in advice
    assert bring(course) == []
    assert sources(mine) == ["a = 1", "my line"] and sources(beside) == ["a = 1", "b = 3"]
    write(course / CHAPTER, "a = 1", "b = 4")  # the one beside was not touched
    bring(course)
    assert sources(beside) == ["a = 1", "b = 4"]
    write(beside, "a = 1", "merged")
    write(course / CHAPTER, "a = 1", "b = 5")
    assert bring(course)[0].endswith("03_data.new2.ipynb")
    assert sources(beside) == ["a = 1", "merged"]
    assert sources(course / "work/notebooks/03_data.new2.ipynb") == ["a = 1", "b = 5"]


def marked(path, *cells):
    """Writes a notebook of (id, kind, source)."""
    cells = [{"id": name, "cell_type": kind, "metadata": {}, "source": [source]} for name, kind, source in cells]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))


TEXT = ("text", "markdown", "# The ring\n\nIt turns."), ("sum", "code", "a = 1\nb = 2\nc = 3"), ("old", "code", "x")
NEWER = (*TEXT[:1], ("sum", "code", "a = 1\nb = 5\nc = 3"), ("more", "markdown", "## Its cost\n\nTwo."))


@pytest.fixture
def merging(course):
    """Two versions of a chapter, and a learner's line in the first."""
    marked(course / CHAPTER, *TEXT)
    bring(course)
    marked(course / "work" / CHAPTER, *TEXT, ("mine", "code", "my line"))
    marked(course / CHAPTER, *NEWER)
    return course


def test_the_cells_that_the_course_changed_are_counted_and_named(merging):
    assert bring(merging)[1:-1] == [
        "  Against the version you started from: 1 cell new, 1 changed, 1 gone.",
        '    changed: code cell sum, under "The ring"',
        '    new: markdown cell more, under "Its cost"',
        '    gone: code cell old, under "The ring"',
    ]
    assert not list((merging / "work/notebooks").glob("*.before*"))  # it is remembered elsewhere


def test_of_many_cells_five_are_named(merging):
    marked(merging / CHAPTER, *TEXT, *((f"n{n}", "code", str(n)) for n in range(8)))
    said = bring(merging)
    assert "8 cells new, 0 changed, 0 gone" in said[1]
    assert len(said) == 9 and said[-2] == "    and 3 more"


@pytest.mark.parametrize("name", ["3", "03", "03_data", "03_data.ipynb", "work/notebooks/03_data.new.ipynb"])
def test_the_lines_that_the_course_changed_are_shown_and_the_learners_own_are_not(merging, name):
    bring(merging)
    head, *lines = update.differences(merging / "work", name)
    assert head.startswith("work/notebooks/03_data.new.ipynb against the version you started from: 1 cell new, 1 ch")
    assert lines[1:7] == [
        '== changed: code cell sum, under "The ring"',
        "@@ -1,3 +1,3 @@",
        " a = 1",
        "-b = 2",
        "+b = 5",
        " c = 3",
    ]
    assert "+## Its cost" in lines and "-x" in lines and not any("my line" in line for line in lines)
    assert update.differences(merging / "work", "04") == []


def test_what_one_started_from_is_remembered_until_the_new_version_is_gone(merging):
    bring(merging)
    marked(merging / CHAPTER, *NEWER, ("last", "code", "z"))
    assert "2 cells new, 1 changed, 1 gone" in bring(merging)[1]
    (merging / "work/notebooks/03_data.new.ipynb").unlink()
    assert update.differences(merging / "work", "03") == []
    marked(merging / CHAPTER, *NEWER)
    assert bring(merging)[1:-1] == [
        "  Against the version you started from: 0 cells new, 0 changed, 1 gone.",
        '    gone: code cell last, under "Its cost"',
    ]


def test_where_it_is_not_known_what_one_started_from_the_learners_own_is_compared(merging):
    bring(merging)
    (merging / "work/.given/notebooks/03_data.before.ipynb").unlink()
    lines = update.differences(merging / "work", "03")
    assert "against yours: 1 cell new, 1 changed, 2 gone." in lines[0] and "-my line" in lines


def test_a_changed_example_is_compared_by_lines(course):
    example = course / "examples/03_mean.py"
    example.parent.mkdir()
    example.write_text("a = 1\n")
    bring(course)
    (course / "work/examples/03_mean.py").write_text("mine\n")
    example.write_text("a = 2\n")
    assert len(bring(course)) == 2
    assert {"-a = 1", "+a = 2"} <= set(update.differences(course / "work", "03_mean.py"))


def test_what_a_prediction_asks_for_comes_without_its_output(course):
    file = course / CHAPTER
    write(file, "guess", "told", output="216 ms")
    notebook = json.loads(file.read_text())
    notebook["cells"][1]["metadata"] = {"jupyter": {"outputs_hidden": True}, "tags": ["seen"]}
    file.write_text(json.dumps(notebook))
    bring(course)
    first, second = json.loads((course / "work" / CHAPTER).read_text())["cells"]
    assert first["outputs"] and first["execution_count"] == 1
    assert not second["outputs"] and second["execution_count"] is None and second["metadata"]["tags"] == ["seen"]
    assert bring(course) == []


def test_what_comes_says_of_its_language_what_the_kernel_says_and_is_never_taken_for_a_change(course, monkeypatch):
    """Else JupyterLab writes it in, and marks each notebook as changed when it opens."""
    text = json.loads((course / CHAPTER).read_text()) | {"metadata": {"language_info": {"name": "python"}}}
    (course / CHAPTER).write_text(json.dumps(text, indent=1) + "\n")
    bring(course)
    mine = course / "work" / CHAPTER
    assert json.loads(mine.read_text())["metadata"]["language_info"] == IPythonKernel.language_info
    assert sources(mine) == sources(course / CHAPTER)
    monkeypatch.setitem(update.LANGUAGE, "version", "3.99")  # another Python than that of the last time
    assert bring(course) == []


def test_a_new_version_that_was_deleted_does_not_come_back(course):
    bring(course)
    write(course / "work" / CHAPTER, "my line")
    write(course / CHAPTER, "b = 3")
    bring(course)
    (course / "work/notebooks/03_data.new.ipynb").unlink()
    assert bring(course) == []


def test_new_entries_of_the_list_of_changes_are_shown_once_and_cut_short(course):
    (course / "CHANGELOG.md").write_text("# What changed\n\n- One.\n- Two, which\n  goes on.\n")
    assert len(bring(course)) == 1  # the first time all is new
    assert bring(course) == []
    new = "".join(f"- Number {n}, which\n  goes on.\n" for n in range(10))
    (course / "CHANGELOG.md").write_text(f"# What changed\n\n- One.\n- Two, which\n  goes on.\n{new}- {'long ' * 50}\n")
    head, first, *rest, last = bring(course)
    assert head == "What is new, from CHANGELOG.md:" and first == "  - Number 0, which goes on."
    assert len(rest) == 7 and last == "  ... and 3 more"
    assert bring(course) == []
    (course / "CHANGELOG.md").write_text("- " + "short " * 50)
    assert bring(course)[1].endswith(" ...") and len(bring(course)) == 0
    (course / "work/.given/CHANGELOG.md").unlink()  # as of one who came when it was not remembered
    assert bring(course) == ["What is new stands in CHANGELOG.md."]


@pytest.mark.parametrize("text", ["", "{", '{"cells": 3}', "\x00", '{"cells": [{"source": "x"}]}'])
def test_a_broken_notebook_is_the_learners_too(course, text):
    bring(course)
    (course / "work" / CHAPTER).write_text(text)
    write(course / CHAPTER, "new")
    assert "stays as you changed it" in bring(course)[0]
    assert (course / "work" / CHAPTER).read_text() == text


def test_a_chapter_that_is_gone_goes_unless_it_was_changed(course):
    bring(course)
    write(course / "work" / TASK, "my answer")
    (course / CHAPTER).unlink()
    (course / TASK).unlink()
    assert bring(course) == [
        f"work/{TASK} is no longer part of the course; yours stays",
        f"no longer part of the course: work/{CHAPTER}",
    ]
    assert [path.name for path in (course / "work").rglob("*.ipynb") if ".given" not in path.parts] == ["03_data.ipynb"]
    assert sources(course / "work" / TASK) == ["my answer"]


def test_what_was_written_in_the_courses_own_folder_is_copied_and_never_replaced(course, tmp_path):
    git(course, "init", "-q")
    commit(course)
    write(course / TASK, "my answer")  # as learners once did
    bring(course)
    git(course, "checkout", "-q", TASK)
    bring(course)
    assert sources(course / "work" / TASK) == ["my answer"]


def test_git_is_clean_after_work_and_pulls_what_is_new(course, clone):
    write(clone / "work" / TASK, "my answer", output="seen")
    (clone / "work" / CHAPTER).write_text("broken")
    (clone / "work/notebooks/of_mine.ipynb").write_text("{}")
    assert git(clone, "status", "--porcelain") == ""
    assert pull(clone) == ""
    write(course / TASK, "another stub")
    write(course / "notebooks/07_new.ipynb", "new")
    commit(course)
    assert re.fullmatch(r"\w+\.\.\w+", pull(clone))
    assert bring(clone)[0] == f"work/{TASK} stays as you changed it; the new version lies beside it: 03_data.new.ipynb"
    assert sources(clone / "work" / TASK) == ["my answer"]
    assert sources(clone / "work/notebooks/07_new.ipynb") == ["new"]
    assert git(clone, "status", "--porcelain") == ""


def no_clone(clone):
    (clone / ".git").rename(clone / "git")


def no_remote(clone):
    git(clone, "remote", "remove", "origin")


def no_branch(clone):
    git(clone, "checkout", "-q", "--detach")


def own_branch(clone):
    git(clone, "switch", "-q", "-c", "own")


def nobody_there(clone):
    git(clone, "remote", "set-url", "origin", str(clone.parent / "nowhere"))


def own_commit(clone):
    (clone / "note.txt").write_text("mine")
    commit(clone)


def changed_file(clone):
    write(clone / CHAPTER, "changed here")


def file_in_the_way(clone):
    (clone / "notebooks/07_new.ipynb").write_text("mine")


@pytest.mark.parametrize(
    "obstacle, said",
    [
        (no_clone, "is no clone"),
        (no_remote, "has no remote"),
        (no_branch, "no branch is checked out"),
        (own_branch, "follows none of the remote"),
        (nobody_there, "git pull: '"),
        (own_commit, "commits of yours stand in the way"),
        (changed_file, f"{CHAPTER}: changed here and in the new version"),
        (file_in_the_way, "notebooks/07_new.ipynb: changed here and in the new version"),
    ],
)
def test_what_stands_in_the_way_of_pulling_is_said_in_a_line_and_nothing_is_lost(course, clone, obstacle, said):
    write(course / CHAPTER, "of the course")
    write(course / "notebooks/07_new.ipynb", "new")
    commit(course)
    obstacle(clone)
    with pytest.raises(CannotPull) as caught:
        pull(clone)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not any(line.startswith("work/") for line in bring(clone))


def test_a_folder_in_the_clone_of_something_else_is_no_clone(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "course").mkdir()
    with pytest.raises(CannotPull, match="is no clone"):
        pull(tmp_path / "course")


def test_without_git(clone, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotPull, match="git is not installed"):
        pull(clone)
    assert bring(clone) == []
