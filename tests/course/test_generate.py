"""Exercises from solutions: the stub, the markers, the same bytes each time."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from parallel_lab.course.generate import BadSource, exercise_of, generate, main, strip, text_of

SOLVED = """def f(x):
    y = 1
    ### BEGIN SOLUTION
    y = x
    return y
    ### END SOLUTION
    return None"""


def test_solution_becomes_a_stub_with_its_indent():
    assert strip(SOLVED) == 'def f(x):\n    y = 1\n    raise NotImplementedError("write me")\n    return None'


def test_shown_lines_take_the_place():
    source = "if x:\n    ### BEGIN SOLUTION\n    #| for i in x:\n    #|     broken()\n    good()\n    ### END SOLUTION"
    assert strip(source) == "if x:\n    for i in x:\n        broken()"


def test_two_solutions_in_a_cell():
    assert (
        strip("### BEGIN SOLUTION\na\n### END SOLUTION\nb\n### BEGIN SOLUTION\nc\n### END SOLUTION").count("raise") == 2
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("### BEGIN SOLUTION\nx", "BEGIN SOLUTION without"),
        ("x\n### END SOLUTION", "END SOLUTION without"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "inside a solution"),
    ],
)
def test_unbalanced_markers_name_notebook_and_cell(source, said):
    notebook = new_notebook(cells=[new_code_cell(source, id="ring")])
    with pytest.raises(BadSource, match=said) as caught:
        exercise_of(notebook, "02_x.ipynb")
    assert str(caught.value).startswith("02_x.ipynb, cell ring: ")


@pytest.mark.parametrize("ids", ["'a', 'a'", "'a', None"])
def test_doubled_and_missing_ids_are_refused(root, ids):
    text = (root / "solutions" / "02_x.ipynb").read_text()
    first, second = ids.replace("'", '"').replace("None", "null").split(", ")
    text = text.replace('"id": "task"', f'"id": {first}').replace('"id": "f"', f'"id": {second}')
    (root / "solutions" / "02_x.ipynb").write_text(text)
    with pytest.raises(BadSource, match=r"02_x\.ipynb, cell .: its id .* is missing or used twice"):
        generate(root, "02_x")


def solution():
    ran = new_code_cell(SOLVED, id="f", execution_count=7, outputs=[new_output("stream", text="secret")])
    ran.metadata = {"tags": ["keep"], "scrolled": True}
    language = {"name": "python", "version": "3.11.7"}
    cells = [new_markdown_cell("# Task", id="task"), ran]
    return new_notebook(cells=cells, metadata={"language_info": language, "widgets": {"state": 1}})


def test_outputs_counts_and_machine_traces_go():
    text = text_of(exercise_of(solution(), "x"))
    for gone in ("secret", "return y", "3.11.7", "scrolled", "widgets"):
        assert gone not in text
    cells = nbformat.reads(text, as_version=4).cells
    assert [cell.id for cell in cells] == ["task", "f"]
    assert cells[1].execution_count is None and cells[1].metadata.tags == ["keep"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "solutions").mkdir()
    nbformat.write(solution(), tmp_path / "solutions" / "02_x.ipynb")
    return tmp_path


def test_command_writes_once_and_then_has_nothing_to_do(root, capsys):
    assert main(["--check", "--root", str(root)]) == 1
    assert "02_x.ipynb is out of date" in capsys.readouterr().out
    assert main(["--root", str(root)]) == 0
    first = (root / "exercises" / "02_x.ipynb").read_bytes()
    assert main(["--check", "--root", str(root)]) == 0
    assert generate(root, "02_x").encode() == first


def test_command_says_which_exercise_has_no_solution(root, capsys):
    main(["--root", str(root)])
    (root / "exercises" / "09_old.ipynb").write_text("{}")
    assert main(["--check", "--root", str(root)]) == 1
    assert "09_old" in capsys.readouterr().out


def test_command_names_what_is_no_notebook(root, capsys):
    (root / "solutions" / "03_bad.ipynb").write_text("no json")
    assert main(["--root", str(root)]) == 1
    assert "03_bad.ipynb is not a notebook" in capsys.readouterr().err
