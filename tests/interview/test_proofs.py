"""`evidence` runs the cells that it names, shows what the last one shows, and leaves the learner's names alone."""

import json

import pytest
from IPython.core.interactiveshell import InteractiveShell

from parallel_lab.course import anchors, workspace
from parallel_lab.course.typed import UnknownName
from parallel_lab.interview import proofs
from parallel_lab.interview.captured import CellFailed, new_space, run_cell
from parallel_lab.interview.needed import Cell
from parallel_lab.interview.proofs import evidence, link, place_of


@pytest.fixture
def ipython():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def stored(notebook, cell):
    cells = json.loads(workspace.notebook(notebook).read_text(encoding="utf-8"))["cells"]
    outputs = next(one["outputs"] for one in cells if one["id"] == cell)
    return "".join("".join(output.get("text", ())) for output in outputs).strip()


def texts(shown):
    return "\n".join(part.text for part in shown if part.text)


def test_what_is_shown_is_what_the_notebook_stores():
    told = []
    found = evidence("E14", told=told.append)
    assert texts(found.shown).strip() == stored("21", "e14-memory")
    assert [cell.id for cell in found.cells] == ["imports-planner", "e14-memory"]
    assert told == [
        f"running cell {n} of 2: {cell} of 21_choosing" for n, cell in ((1, "imports-planner"), (2, "e14-memory"))
    ]
    assert not found.failed and "Ran just now: 2 cells" in repr(found)
    assert 'href="21_choosing.ipynb#' in found._repr_html_()


def test_real_ranks_run_in_evidence_and_an_atom_names_its_card():
    found = evidence("C9/number", "zh")
    assert texts(found.shown).strip() == stored("07", "c9-split")
    assert "C9 的证据" in repr(found) and 'lang="zh"' in found._repr_html_()


def test_a_cell_that_raises_is_told_and_nothing_is_shown(tmp_path, monkeypatch):
    cells = [
        {"cell_type": "code", "id": "one", "metadata": {}, "source": "a = 1", "outputs": []},
        {"cell_type": "code", "id": "e14-memory", "metadata": {}, "source": "a / 0", "outputs": [1]},
    ]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "21_choosing.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(workspace, "root", lambda: tmp_path)
    anchors.heading_above.cache_clear()
    found = evidence("E14")
    anchors.heading_above.cache_clear()
    assert found.failed == "21_choosing.ipynb, e14-memory: ZeroDivisionError: division by zero"
    assert "did not run to the end" in repr(found) and found.shown == []


def test_outputs_come_in_their_order_without_a_shell(capsys):
    cell = Cell("own", (), "import sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay('c')\nx = 2\nx + 1")
    assert texts(run_cell(cell, new_space(), "here")) == "a\nc\n3"
    assert capsys.readouterr().out == ""


def test_a_shell_shows_pictures_and_pages(ipython):
    cell = Cell(
        "own",
        (),
        "from parallel_lab.plan import parse\nfrom parallel_lab.view import draw\nprint('p')\ndraw(parse('0F0 0B0'))",
    )
    before = ipython.display_pub
    first, image, numbers = run_cell(cell, new_space(), "here")
    assert ipython.display_pub is before
    assert first.text == "p" and 'src="data:image/png;base64,' in image.html and 'alt="' in image.html
    assert "<details" in numbers.html


def test_a_cell_in_a_shell_may_clear_and_return_nothing(ipython):
    source = "from IPython.display import clear_output\nprint('old')\nclear_output()\ndisplay('new')\nNone"
    assert texts(run_cell(Cell("own", (), source), new_space(), "here")) == "'new'"
    with pytest.raises(CellFailed, match="here, own: KeyError: 'a'"):
        run_cell(Cell("own", (), "{}['a']"), new_space(), "here")


def test_a_line_says_which_cell_runs(monkeypatch):
    told = []
    evidence("E14", told=told.append)
    assert "running cell 1 of 2" in told[0] and "running cell 2 of 2" in told[1]


def test_a_terminal_shows_a_line_and_takes_it_away(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    evidence("E14", "zh")
    assert "正在运行第 1 个单元" in capsys.readouterr().err


def test_wrong_names_end_in_a_sentence():
    with pytest.raises(UnknownName, match="the nearest are"):
        place_of("E555")
    with pytest.raises(ValueError, match="choose en for English"):
        evidence("E5", "fr")
    assert "under" in link("07_model_parallel#e5-naive").text


def test_a_card_without_a_cell_says_so(monkeypatch):
    monkeypatch.setattr(
        proofs, "ask", lambda name: type("Card", (), {"evidence": "", "question": type("Q", (), {"id": "Z1"})})
    )
    with pytest.raises(ValueError, match="card Z1 names no cell"):
        place_of("Z1")
