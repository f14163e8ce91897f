import pytest
from matplotlib.patches import Rectangle

from parallel_lab.view import grid

CELLS = [["a0", "b0"], ["a1", ""]]


def colors(drawing) -> list:
    return [patch.get_facecolor() for patch in drawing.figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_cells_with_the_same_word_look_the_same():
    first, second, third, empty = colors(grid({"x": [["a", "b"], ["a", ""]]}, ["0", "1"], ["p", "q"]))
    assert first == third != second
    assert empty[:3] == (1.0, 1.0, 1.0)


def test_by_says_what_looks_the_same():
    a0, b0, a1, _ = colors(grid({"x": CELLS}, ["0", "1"], ["p", "q"], by=lambda word: word[-1]))
    assert a0 == b0 != a1


def test_the_text_holds_every_word_and_each_panel():
    drawing = grid({"before": CELLS, "x": CELLS, "after": CELLS}, ["0", "1"], ["p", "q"], ylabel="rank", across=2)
    side_by_side = ["before      x", "    p   q       p   q", "0  a0  b0   0  a0  b0", "1  a1   -   1  a1   -"]
    assert drawing.text.splitlines()[:4] == side_by_side
    assert "after" in drawing.text.splitlines()[5] and "rank" in drawing.alt and drawing.png.startswith(b"\x89PNG")


def test_wide_panels_stand_below_each_other_in_the_text():
    row = [["word" * 5] * 4]
    drawing = grid({"a": row, "b": row}, ["0"], list("wxyz"), across=2)
    assert max(map(len, drawing.text.splitlines())) < 100 and len(drawing.text.split("\n\n")) == 2


def test_it_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        grid({}, ["0"], ["p"])
    with pytest.raises(ValueError, match="x: expected 1 rows of 2 words"):
        grid({"x": [["a"]]}, ["0"], ["p", "q"])
