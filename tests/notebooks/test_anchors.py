"""Every link to a heading goes where it says, in JupyterLab and on the web; so do the cards' links to their proof."""

import functools
import json
import re
from html import unescape
from pathlib import Path

import pytest

from parallel_lab.course.anchors import anchor, heading_above, headings, proof
from parallel_lab.course.questions import ask, index

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for folder in ("notebooks", "solutions", "exercises") for path in sorted(ROOT.glob(f"{folder}/*.ipynb"))]
LINK = re.compile(r"\]\(([^()\s]*)#((?:[^()\s]|\([^()]*\))+)\)")
# What a browser leaves as it is in the fragment of an address, and JupyterLab therefore finds.
PLAIN = re.compile(r"[\w;,/?:@&=+$\-.!~*'()]+", re.ASCII)
PROVED = [name for name in index() if ask(name).evidence]


@functools.cache
def markdown(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@functools.cache
def anchors(path: Path) -> list[str]:
    return [anchor(heading) for text in markdown(path) for heading in headings(text)]


def test_ids_are_those_of_jupyterlab():
    """Compared with what JupyterLab 4.6 made of these headings."""
    text = (
        "# 5 A deadlock, explained\n\n## 3 It's, a colon: why?\n\n```\n# no heading\n```\n\n## 4 Code `x_y` and *em*\n"
    )
    ids = ["5-A-deadlock,-explained", "3-It's,-a-colon:-why?", "4-Code-x_y-and-em"]
    assert [anchor(heading) for heading in headings(text)] == ids


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_link_to_a_heading_leads_to_one(path):
    for file, name in LINK.findall("\n".join(markdown(path))):
        if "://" in file or (file and not file.endswith(".ipynb")):
            continue
        there = (path.parent / file).resolve() if file else path
        assert name in anchors(there), f"{file}#{name}: no such heading"
        assert PLAIN.fullmatch(name), f"{file}#{name}: JupyterLab does not find it, for the browser encodes it"
        assert anchors(there).count(name) == 1, f"{file}#{name}: two headings have this name"


@pytest.mark.parametrize("name", PROVED)
def test_every_card_links_to_the_heading_above_its_proof(name):
    shown = re.search(r'<a href="([^"#]+)#([^"]+)">', ask(name)._repr_html_())
    assert shown
    file, place = shown[1], unescape(shown[2])
    assert PLAIN.fullmatch(place) and anchors(ROOT / "notebooks" / file).count(place) == 1


def test_a_cell_is_found_by_tag_under_the_nearest_heading():
    assert heading_above("00", "deadlock") == ("00_start_here.ipynb", "5 A deadlock, explained")
    assert heading_above("00_start_here", "launch-first") == ("00_start_here.ipynb", "1 Launch a function")
    assert heading_above("00", "no-such-cell") is None


def test_a_proof_reads_in_a_terminal_and_without_the_course_folder():
    assert (
        proof("Chapter 00; shown", "00#train").text
        == "Chapter 00; shown under “2 Train a GPT on four ranks” in 00_start_here.ipynb."
    )
    assert proof("Chapter 99; shown", "99_later#cell").text == "Chapter 99; shown by the cell 99_later#cell."
