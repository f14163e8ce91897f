"""Running notebooks again: the same notebook gives the same bytes; a failure names the cell and changes nothing."""

import runpy
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "execute_notebooks.py"))
execute, clean, WIDGET = TOOL["execute"], TOOL["clean"], TOOL["WIDGET"]


def write(path: Path, *sources: str) -> Path:
    cells = [new_markdown_cell("# Title", id="title")]
    cells += [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": {"name": "odd", "display_name": "Odd"}}), path)
    return path


def test_twice_gives_the_same_bytes_from_its_own_folder(tmp_path):
    (tmp_path / "note.txt").write_text("beside")
    path = write(tmp_path / "a.ipynb", "print(open('note.txt').read())", "1 + 1")
    assert execute([path]) == []
    first = path.read_bytes()
    assert execute([path]) == []
    assert path.read_bytes() == first
    notebook = nbformat.read(path, 4)
    assert [cell.id for cell in notebook.cells] == ["title", "cell-0", "cell-1"]
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert notebook.cells[1].outputs[0].text == "beside\n"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "version" not in notebook.metadata.language_info


def test_a_failure_names_notebook_and_cell_and_leaves_the_file(tmp_path):
    path = write(tmp_path / "b.ipynb", "x = 1", "1 / 0", "x")
    before = path.read_bytes()
    (failed,) = execute([path])
    assert "b.ipynb: cell 2 of 3 (cell-1): ZeroDivisionError" in str(failed)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["b.ipynb"]


def test_a_widget_gives_way_to_the_picture_beside_it():
    output = {"output_type": "display_data", "metadata": {}, "data": {WIDGET: {"model_id": "x"}, "image/png": "y"}}
    alone = {"output_type": "display_data", "metadata": {}, "data": {WIDGET: {"model_id": "x"}}}
    cell = new_code_cell("", id="a", metadata={"execution": {"iopub.status.busy": "now"}, "tags": ["keep"]})
    cell.outputs = [nbformat.from_dict(output), nbformat.from_dict(alone)]
    cleaned = clean(new_notebook(cells=[cell])).cells[0]
    assert cleaned.outputs[0].data == {"image/png": "y"}
    assert WIDGET in cleaned.outputs[1].data
    assert cleaned.metadata == {"tags": ["keep"]}


def test_nothing_is_solved_yet_whoever_runs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "mine.json"))
    (tmp_path / "mine.json").write_text('{"exercises": {"ring_shift": {"best": 1.0}}, "quizzes": {}, "version": 1}')
    path = write(tmp_path / "c.ipynb", "from parallel_lab.course.chapters import progress_table\nprogress_table()")
    assert execute([path]) == []
    shown = nbformat.read(path, 4).cells[1].outputs[0].data
    first, *_, last = shown["text/plain"].splitlines()
    assert (first, last) == ("Nothing solved yet.", "../progress.json")
    assert "../progress.json" in shown["text/html"] and "/tmp" not in shown["text/html"]
