"""The stops of a path: what their boxes say, and that they are drawn."""

import pytest

from parallel_lab.view.trail import Stop, trail

STOPS = [
    Stop("00 Start", 3, 3),
    Stop("01 Collectives: how ranks talk to each other, and what it costs", 2, 8, due=4, is_next=True),
    Stop("02 Later", 0, 5, due=1),
    Stop("03 To read", 0, 0),
    Stop("04 Last", 0, 2),
]


def test_words_alt_and_text_say_what_is_drawn():
    drawn = trail(STOPS, title="The path")
    assert drawn.alt == "The path. A path of 5 stops: 5 of 18 done, 5 due."
    assert "2 of 8 done · 4 due" in drawn.text and "to read" in drawn.text and drawn.text.count("here") == 1
    written = [text.get_text().replace("\n", " ") for text in drawn.figure.axes[0].texts]
    assert "next ▸ 2 of 8 done · 4 due" in written and STOPS[1].name in written
    assert trail(STOPS, text="mine").text == "mine"


def test_bars_are_as_long_as_what_is_done_and_edges_tell_what_is_due():
    ax = trail(STOPS, across=2).figure.axes[0]
    hatched = [patch for patch in ax.patches if patch.get_hatch()]
    whole, part = (patch.get_width() for patch in hatched)
    assert part == pytest.approx(whole / 4)
    boxes = [patch for patch in ax.patches if patch.get_height() > 0.5]
    assert len(boxes) == len(STOPS)
    assert len({boxes[n].get_edgecolor() for n in (0, 1, 2)}) == 3
    assert trail(STOPS).png.startswith(b"\x89PNG")


def test_nothing_is_no_path():
    with pytest.raises(ValueError, match="no stop"):
        trail([])
