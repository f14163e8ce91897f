"""What is committed is what ran: every notebook was executed in order, is small, and its pictures have a text."""

import json
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LIMIT_BYTES = 1_500_000
VOLATILE = {"execution"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def results(notebook) -> list[dict]:
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def test_is_valid(notebook):
    nbformat.validate(notebook)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)


def test_was_executed_in_order(notebook):
    # nbval never compares a cell whose execution_count is null.
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run make notebooks"


def test_ids_are_there_and_differ(notebook):
    ids = [cell.get("id") for cell in notebook["cells"]]
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_only_cells_that_are_meant_to_fail_did(notebook):
    for cell in code_cells(notebook):
        failed = any(output["output_type"] == "error" for output in cell["outputs"])
        meant = "raises-exception" in cell["metadata"].get("tags", [])
        assert failed == meant, f"cell {cell['id']}"


def test_holds_nothing_of_one_machine_or_one_run(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "version" not in notebook["metadata"].get("language_info", {}), "run make notebooks"
    assert "widgets" not in notebook["metadata"], "run make notebooks"
    for cell in notebook["cells"]:
        assert not VOLATILE & cell["metadata"].keys(), f"cell {cell['id']}: run make notebooks"


def test_pictures_have_a_text(notebook):
    for output in results(notebook):
        data, metadata = output.get("data", {}), output.get("metadata", {})
        assert "image/svg+xml" not in data, "PNG, as SVG survives neither the web nor comparison"
        if "image/png" in data:
            alt = metadata.get("alt") or metadata.get("image/png", {}).get("alt") or ""
            assert alt.strip(), "an image without alternative text"


def test_is_small(path):
    assert path.stat().st_size < LIMIT_BYTES


def test_first_notebook_is_the_one_that_make_lab_opens():
    assert not NOTEBOOKS or NOTEBOOKS[0].name == "00_start_here.ipynb"
