"""Every technique is shown in a chapter, and what is stored of `show` is what stands in the file today."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

from parallel_lab.collectives.api import algorithms
from parallel_lab.course.listing import PACKAGE, Listing, show

ROOT = Path(__file__).resolve().parents[2]
SERVER = {"parallel_lab.parameter_server.server", "parallel_lab.parameter_server.worker"}
ALGORITHMS = {f"parallel_lab.collectives.{name}" for name in algorithms("all_reduce")}
LIMIT_LINES = 40


def show_cells() -> list[tuple[str, str, Listing, str]]:
    """The notebook, the source, what it shows today and what is stored, of each cell that is a call of `show`."""
    found = []
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith("show("):
                call = ast.parse(source, mode="eval").body
                listing = show(*(ast.literal_eval(argument) for argument in call.args))
                stored = "".join("".join(output["data"]["text/plain"]) for output in cell["outputs"])
                found.append((path.name, source, listing, stored))
    return found


CELLS = show_cells()


def every_technique() -> set[str]:
    """The modules of all techniques that `tests/techniques` holds, and of the collectives."""
    spec = importlib.util.spec_from_file_location("every_technique", ROOT / "tests/techniques/every_technique.py")
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    return {vars(kit)[name].__module__ for name in kit.TECHNIQUES if name in vars(kit)} | SERVER | ALGORITHMS


def test_every_technique_is_shown_in_a_chapter():
    shown = {".".join(one.file.relative_to(PACKAGE.parent).with_suffix("").parts) for _, _, one, _ in CELLS}
    assert not every_technique() - shown


@pytest.mark.parametrize(("notebook", "source", "listing", "stored"), CELLS, ids=lambda value: str(value)[:60])
def test_what_is_stored_is_the_code_of_today(notebook, source, listing, stored):
    assert stored == repr(listing), f"the code of {source} has changed: run make notebooks for {notebook}"
    assert len(listing.code.splitlines()) < LIMIT_LINES


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem[:2])
def test_links_to_code_are_seen_from_the_notebook(path):
    assert 'href=\\"parallel_lab/' not in path.read_text(encoding="utf-8"), "run it again from its own folder"
