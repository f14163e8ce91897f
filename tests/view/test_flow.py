"""Boxes and arrows: where they stand, what the text says, and what is refused."""

import pytest

from parallel_lab.view import flow

COLUMNS = {"ask": ["does it fit?", "", "is it quick?"], "then": ["copy it", "cut it"]}


def test_the_text_lists_the_arrows_with_what_stands_beside_them():
    drawing = flow(COLUMNS, [("does it fit?", "copy it", "yes"), ("does it fit?", "is it quick?")], title="Choose")
    assert drawing.text == "does it fit? -> (yes) copy it\ndoes it fit? -> is it quick?"
    assert drawing.alt == "Choose. Boxes and arrows: ask, then."
    assert drawing.png.startswith(b"\x89PNG")


def test_each_box_is_drawn_once_with_its_words():
    (ax,) = flow(COLUMNS, []).figure.axes
    words = {text.get_text() for text in ax.texts}
    assert {"does it fit?", "is it quick?", "copy it", "cut it", "ask", "then"} == words
    assert len(ax.patches) == 4, "an empty place has no box"


def test_an_arrow_goes_down_in_a_column_and_to_the_side_between_columns():
    (ax,) = flow(COLUMNS, [("does it fit?", "is it quick?", "no"), ("is it quick?", "cut it", "")]).figure.axes
    down, side = (text for text in ax.texts if getattr(text, "arrow_patch", None))
    assert down.xyann[0] == down.xy[0] and down.xyann[1] < down.xy[1]
    assert side.xyann[0] < side.xy[0]


@pytest.mark.parametrize(
    ("columns", "arrows", "message"),
    [
        ({"a": []}, [], "nothing to draw"),
        ({"a": ["x"], "b": ["x"]}, [], "two boxes have the words 'x'"),
        ({"a": ["x"]}, [("x", "y")], "no box has the words 'y'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(columns, arrows, message):
    with pytest.raises(ValueError, match=message):
        flow(columns, arrows)
