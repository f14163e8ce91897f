"""The planner's widget: a picture without a kernel, sliders with one, and a sentence where nothing fits."""

import pytest

from parallel_lab.course import plan_widget
from parallel_lab.course.planning import RANKS_DRAWN, picture

SMALL = {"name": "llama3-8b", "gpus": 16, "batch": 32}


def test_the_picture_has_the_timeline_and_says_what_it_shows():
    shown = picture("llama3-8b", "h100-ib", 16, 32, pp=2, tp=2)
    assert shown.png.startswith(b"\x89PNG") and "llama3-8b, 16 GPUs of h100-ib: pp=2 dp=4 tp=2" in shown.alt
    assert "step" in shown.text and "MFU" in shown.text and "2 ranks" in shown.text


def test_the_widget_moves_and_is_static_elsewhere():
    widget = plan_widget(**SMALL)
    shown, metadata = widget._repr_mimebundle_()
    assert shown["image/png"] and "llama3-8b" in metadata["alt"] and "gpus = 16" in shown["text/plain"]
    assert "tp=4" in widget.show(tp=4) and widget.values["tp"] == 4
    assert [control.description for control in widget.form().children[:-1]] == list(widget.choices)


def test_what_fits_nowhere_is_a_sentence():
    said = plan_widget(**SMALL).show(model="llama3-405b")
    assert 'role="status"' in said and "least memory found" in said
    with pytest.raises(ValueError, match="no model"):
        picture("llama3-9b", "h100-ib", 16, 32)


def test_of_many_stages_some_are_drawn():
    shown = picture("llama3-70b", "h100-ib", 256, 256, pp=2 * RANKS_DRAWN, tp=8)
    assert f"the first {RANKS_DRAWN} of {2 * RANKS_DRAWN} stages" in shown.alt
