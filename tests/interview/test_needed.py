"""Which cells a cell needs: by names, changes and functions; and of every card, that what is run is enough."""

import pytest

from parallel_lab.course import workspace
from parallel_lab.course.questions import ask, index
from parallel_lab.interview.needed import Cell, code_of, missing, needed


def cells_of(*sources, shows=None):
    return [Cell(f"c{n}", (), source, shows is None or n in shows) for n, source in enumerate(sources)]


def ids(cells, name):
    return [cell.id for cell in needed(cells, name)]


@pytest.mark.parametrize(
    ("sources", "wanted"),
    [
        (("import math", "other = 1", "math.pi"), ["c0", "c2"]),
        (("a = 1", "b = a", "a = 2", "a + b"), ["c0", "c1", "c2", "c3"]),
        (("a = []", "b = 0", "a.append(1)", "for x in range(2):\n    a[0] = x", "a"), ["c0", "c2", "c3", "c4"]),
        (("n = 9", "for n in range(3):\n    print(n)"), ["c1"]),
        (("x = 1", "[x for x in range(3)]"), ["c1"]),
        (("def f():\n    return k", "k = 3", "z = 0", "f()"), ["c0", "c1", "c3"]),
        (("seen = {}", "def note(k):\n    seen[k] = 1", "note('a')", "note", "seen"), ["c0", "c1", "c2", "c4"]),
        (("y = 1", "def f(y):\n    def g():\n        return y\n    return g", "f(2)()"), ["c1", "c2"]),
        (("count = 0", "count += 1", "count"), ["c0", "c1", "c2"]),
        (("import os", "with open(os.devnull) as file:\n    text = file.read()", "text"), ["c0", "c1", "c2"]),
        (
            ("class A:\n    b = 1\n    c = b", "try:\n    A()\nexcept ValueError as error:\n    print(error)"),
            ["c0", "c1"],
        ),
        (("n = 2", "%time n = 5", "n"), ["c0", "c2"]),
    ],
)
def test_a_cell_takes_what_its_names_come_from(sources, wanted):
    cells = cells_of(*sources)
    assert ids(cells, f"c{len(sources) - 1}") == wanted
    assert not missing([cell for cell in cells if cell.id in wanted])


def test_a_definition_is_followed_to_the_cell_that_shows_what_it_does():
    cells = cells_of("import math", "def area(r):\n    return math.pi * r**2", "1 + 1", "area(2)", shows={2, 3})
    assert ids(cells, "c1") == ["c0", "c1", "c3"]


def test_what_is_missing_is_named():
    assert missing(cells_of("a = b", "def f():\n    return later", "f()")) == {"b", "later"}


def test_every_card_s_evidence_is_complete_and_brings_few_cells():
    few = []
    for name in index():
        notebook, _, tag = ask(name).evidence.partition("#")
        cells = code_of(workspace.notebook(notebook))
        found = needed(cells, tag)
        assert not missing(found), (name, missing(found))
        assert found[-1].shows, name
        few.append(len(found) / len(cells))
    assert len(few) == 120 and sum(few) / len(few) < 0.2


def test_what_is_not_there_is_said():
    with pytest.raises(ValueError, match="no cell of code has the tag gone"):
        needed(cells_of("1"), "gone")
    with pytest.raises(FileNotFoundError, match="chapter 77 is not at hand"):
        workspace.notebook("77")
