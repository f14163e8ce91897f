"""The cell for Colab: at the head of every chapter, harmless elsewhere, and on Colab it installs from the address."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from parallel_lab.course import colab

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def source(text: str) -> str:
    return "".join(json.loads(text)["cells"][1]["source"])


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_stands_behind_the_title_and_says_what_it_does(file):
    text = file.read_text(encoding="utf-8")
    assert json.loads(text)["cells"][1]["id"] == colab.ID and colab.headed(text) == text
    assert "Anywhere else it does nothing" in source(text)


def test_it_does_nothing_here():
    assert "google.colab" not in sys.modules
    exec(source(NOTEBOOKS[0].read_text(encoding="utf-8")), {})


def test_on_colab_it_installs_from_the_address_or_asks_for_it(monkeypatch):
    class Shell:
        def run_line_magic(self, name, line):
            ran.append((name, line))

    ran: list[tuple[str, str]] = []
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    text = NOTEBOOKS[0].read_text(encoding="utf-8")
    exec(source(colab.headed(text, "https://example.invalid/course")), {"get_ipython": Shell})
    assert ran == [("pip", "install --quiet git+https://example.invalid/course")]
    with pytest.raises(SystemExit, match="write the address"):
        exec(source(colab.headed(text, "")), {"get_ipython": Shell})


def test_the_command_writes_the_address_and_counts_on(tmp_path, capsys):
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": []}]
    shown = {"output_type": "execute_result", "execution_count": 7, "data": {"text/plain": ["Cell In[7], line 2"]}}
    cells.append({"cell_type": "code", "id": "a", "execution_count": 7, "outputs": [shown], "source": []})
    (tmp_path / "notebooks").mkdir()
    file = tmp_path / "notebooks" / "00_mine.ipynb"
    file.write_text(json.dumps({"cells": cells}))
    assert colab.main(["--root", str(tmp_path), "--repository", "https://example.invalid/mine"]) == 0
    _, head, ran = json.loads(file.read_text())["cells"]
    assert head["execution_count"] == 1 and ran["execution_count"] == 8
    assert ran["outputs"][0]["execution_count"] == 8 and ran["outputs"][0]["data"]["text/plain"] == [
        "Cell In[8], line 2"
    ]
    assert colab.main(["--root", str(tmp_path)]) == 0
    assert "example.invalid/mine" in source(file.read_text()), "an address that was written stays"
    assert colab.main(["--root", str(tmp_path), "--repository", "mine"]) == 1
    assert "is no address" in capsys.readouterr().err
