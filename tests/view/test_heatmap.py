import numpy as np
import pytest

from parallel_lab.view import heatmap

EYE = [[1.0, 0.0], [0.0, 1.0]]


def test_all_panels_share_one_scale():
    drawing = heatmap({"a": EYE, "b": [[0.0, 4.0], [2.0, 0.0]]}, ["r", "s"], ["p", "q"], ylabel="to", xlabel="from")
    first, second = (ax.get_images()[0] for ax in drawing.figure.axes[:2])
    assert first.get_clim() == second.get_clim() == (0, 4)
    assert np.array_equal(second.get_array(), [[0, 4], [2, 0]])
    assert "to by from" in drawing.alt and drawing.png.startswith(b"\x89PNG")


def test_rows_and_columns_are_named():
    ax = heatmap({"a": EYE}, ["r", "s"], ["p", "q"]).figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["p", "q"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["r", "s"]


def test_values_can_be_left_out_of_the_text():
    assert heatmap({"a": EYE}, ["r", "s"], ["p", "q"]).text.split() == ["cells", "largest", "a", "2", "x", "2", "1"]
    texts = {heatmap({"a": [[v]]}, ["r"], ["p"], show_values=False).text for v in (0.1, 0.9)}
    assert len(texts) == 1


def test_zeros_alone_can_be_drawn():
    assert heatmap({"a": [[0.0]]}, ["r"], ["p"]).png


@pytest.mark.parametrize(
    ("matrices", "said"),
    [({}, "nothing to draw"), ({"x": [[1.0]]}, "x: expected 2 rows"), ({"x": [[1, -1], [0, 0]]}, "0 or more")],
)
def test_it_refuses_what_it_cannot_draw(matrices, said):
    with pytest.raises(ValueError, match=said):
        heatmap(matrices, ["r", "s"], ["p", "q"])
