from types import SimpleNamespace

import numpy as np
import pytest

from parallel_lab.collectives import Message, assemble, hierarchical
from parallel_lab.plan import Op, Plan, recv, send
from parallel_lab.trace import Sample, Span, Trace
from parallel_lab.view import bars, draw_memory, draw_mesh, lines, topology
from parallel_lab.view.style import KINDS


def ring(ranks: int) -> Plan:
    ops = []
    for step in range(ranks - 1):
        for rank in range(ranks):
            ops.append(send(rank, (rank + 1) % ranks, (rank - step) % ranks, round=step))
            ops.append(recv(rank, (rank - 1) % ranks, (rank - 1 - step) % ranks, round=step))
    return Plan.of(ops)


def test_lines_draw_predictions_and_measurements_in_one_color():
    drawing = lines(
        {"ring": ([2, 4], [1.0, 1.5])}, "ranks", "bytes", points={"ring": ([4], [1.4]), "other": ([3], [2])}
    )
    line, measured, other = drawing.figure.axes[0].get_lines()
    assert line.get_color() == measured.get_color() != other.get_color()
    assert measured.get_linestyle() == "None" and list(measured.get_ydata()) == [1.4]
    assert "2 to 4" in drawing.text and "ring" in drawing.alt and drawing.png.startswith(b"\x89PNG")


def test_measured_values_can_be_left_out_of_the_text():
    texts = {lines({"a": ([1, 2], [y, 2 * y])}, "x", "s", show_values=False).text for y in (1.0, 1.1)}
    assert len(texts) == 1
    assert (
        bars({"a": [1.5]}, ["x"], "s", show_values=False).text == bars({"a": [9]}, ["x"], "s", show_values=False).text
    )


def test_a_logarithmic_axis_is_ticked_at_the_values():
    drawing = lines({"a": ([1, 2, 4, 8], [1, 2, 3, 4])}, "ranks", "y", logx=True)
    assert [t.get_text() for t in drawing.figure.axes[0].get_xticklabels()] == ["1", "2", "4", "8"]


def test_points_say_what_they_are():
    drawing = lines({"a": ([1, 2], [1, 2])}, "x", "y", points={"a": ([1], [1])}, points_are="simulated")
    assert [t.get_text() for t in drawing.figure.legends[0].get_texts()] == ["a", "a (simulated)"]


def test_a_short_logarithmic_y_axis_has_plain_numbers():
    drawing = lines({"a": ([1, 2], [20, 500])}, "x", "y", logy=True)
    ticks = drawing.figure.axes[0].yaxis
    words = {t.get_text() for t in [*ticks.get_ticklabels(), *ticks.get_ticklabels(minor=True)]}
    assert {"20", "50", "100", "200"} <= words and not any("10^" in word for word in words)


def test_lines_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="a: 2 x values and 1 y values"):
        lines({"a": ([1, 2], [1])}, "x", "y")
    with pytest.raises(ValueError, match="logarithmic"):
        lines({"a": ([0, 1], [1, 2])}, "x", "y", logx=True)
    with pytest.raises(ValueError, match="nothing to draw"):
        lines({}, "x", "y")


def test_bars_stand_in_groups_and_differ_by_more_than_color():
    drawing = bars({"ours": [1, 2], "theirs": [3, 4]}, ["small", "large"], "s")
    ours, theirs = drawing.figure.axes[0].containers
    assert [bar.get_height() for bar in theirs] == [3, 4]
    assert ours[0].get_x() + ours[0].get_width() == pytest.approx(theirs[0].get_x())
    assert ours[0].get_hatch() != theirs[0].get_hatch()
    assert drawing.text.splitlines()[1].split() == ["small", "1", "3"]
    with pytest.raises(ValueError, match="wrong: ours"):
        bars({"ours": [1]}, ["small", "large"], "s")


def test_topology_draws_a_panel_a_round_and_an_arrow_a_pair():
    drawing = topology(ring(4), "ring")
    assert [ax.get_title() for ax in drawing.figure.axes] == ["round 0", "round 1", "round 2"]
    arrows = [patch for patch in drawing.figure.axes[0].patches if type(patch).__name__ == "FancyArrowPatch"]
    assert len(arrows) == 4
    assert "4 ranks on a circle; arrows show 12 messages in 3 rounds" in drawing.alt


def written(ax):
    return sorted(text.get_text() for text in ax.texts if text.get_style() == "italic")


def test_topology_calls_chunks_by_letters_and_a_whole_tensor_s():
    assert written(topology(ring(4)).figure.axes[0]) == ["a", "b", "c", "d"]
    halves = Message(0, 0, 1, 0), Message(0, 1, 0, 1), Message(1, 0, 1, 2)
    drawn = topology(assemble(2, halves, ((0, 2), (2, 4), (0, 4)))).figure.axes
    assert [written(ax) for ax in drawn] == [["ab", "cd"], ["abcd"]]
    assert written(topology(Plan.of([send(0, 1, 0), recv(1, 0, 0)])).figure.axes[0]) == ["S"]
    assert written(topology(ring(4), names="wxyz").figure.axes[0]) == ["w", "x", "y", "z"]


def test_topology_tells_messages_between_nodes_from_those_inside():
    drawing = topology(hierarchical.all_reduce_plan(2, 2), ranks_per_node=2)
    axes = drawing.figure.axes
    assert [ax.get_title() for ax in axes[:2]] == ["round 0: inside nodes", "round 1: between nodes"]
    boxes = [patch for patch in axes[0].patches if type(patch).__name__ == "FancyBboxPatch"]
    assert len(boxes) == 2 and {"node 0", "node 1"} <= {text.get_text() for text in axes[0].texts}
    inside, between = ([p for p in ax.patches if type(p).__name__ == "FancyArrowPatch"] for ax in axes[:2])
    assert max(a.get_linewidth() for a in inside) < min(a.get_linewidth() for a in between)
    assert {a.get_edgecolor() for a in inside}.isdisjoint({a.get_edgecolor() for a in between})
    assert drawing.text.splitlines()[2].split() == ["1", "4", "4", "1", "4"] and "4 ranks in nodes of 2" in drawing.alt


def test_an_arrow_goes_round_the_ranks_between_its_ends():
    _, arrow = (
        next(
            p for p in topology(plan, ranks_per_node=1).figure.axes[0].patches if type(p).__name__ == "FancyArrowPatch"
        )
        for plan in (Plan.of([send(0, 1, 0), recv(1, 0, 0)], ranks=3), Plan.of([send(0, 2, 0), recv(2, 0, 0)]))
    )
    assert arrow.get_connectionstyle().rad > 0.3


def test_topology_draws_at_most_eight_rounds_and_says_what_is_missing():
    drawing = topology(ring(12))
    assert [ax.get_title() for ax in drawing.figure.axes][-2:] == ["round 6", "round 10"]
    assert len(drawing.figure.axes) == 8 and "not drawn: 3 rounds" in drawing.text
    with pytest.raises(ValueError, match="no message"):
        topology(Plan.of([Op(0, "F", 0)]))


def test_a_mesh_numbers_ranks_row_by_row():
    drawing = draw_mesh({"pp": 2, "dp": 2, "tp": 2})
    assert drawing.text.splitlines() == [
        "pp: groups [0, 4] [1, 5] [2, 6] [3, 7]",
        "dp: groups [0, 2] [1, 3] [4, 6] [5, 7]",
        "tp: groups [0, 1] [2, 3] [4, 5] [6, 7]",
    ]
    assert [ax.get_title() for ax in drawing.figure.axes] == ["pp 0", "pp 1"]
    assert [t.get_text() for t in drawing.figure.axes[1].texts] == ["rank 4", "rank 5", "rank 6", "rank 7"]


def test_a_device_mesh_keeps_its_own_order_of_ranks():
    mesh = SimpleNamespace(mesh=np.array([[3, 1], [2, 0]]), mesh_dim_names=("dp", "tp"))
    assert draw_mesh(mesh).text.splitlines() == ["dp: groups [3, 2] [1, 0]", "tp: groups [3, 1] [2, 0]"]


def test_ranks_with_the_same_place_on_the_last_axis_look_the_same():
    cells = [patch.get_facecolor() for patch in draw_mesh({"dp": 2, "tp": 2}).figure.axes[0].patches]
    assert cells[0] == cells[2] != cells[1] == cells[3]
    with pytest.raises(ValueError, match="size 1 or more"):
        draw_mesh({"dp": 0})


def test_memory_is_stacked_by_kind_and_its_peak_is_explained():
    samples = (
        Sample(0, 0, 4_000_000, "parameters"),
        Sample(0, 1, 6_000_000, "activations"),
        Sample(0, 2, 0, "activations"),
    )
    drawing = draw_memory(Trace(1, (Span(0, "F", 0, 3),), samples, simulated=True))
    assert drawing.text.splitlines()[1].split() == ["0", "10.0", "MB", "4.00", "MB", "6.00", "MB"]
    parameters, activations = drawing.figure.axes[0].collections
    assert parameters.get_paths()[0].vertices[:, 1].max() == 4
    assert activations.get_paths()[0].vertices[:, 1].max() == 10
    with pytest.raises(ValueError, match="no memory samples"):
        draw_memory(Trace(1, ()))


def test_memory_is_drawn_as_far_as_it_is_known_of_each_rank():
    samples = tuple(Sample(rank, time_s, 1_000, "parameters") for rank in (0, 1) for time_s in (0.0, 2.0 + 6 * rank))
    spans = (Span(0, "F", 0.0, 3.0),)
    ends = []
    for ax in draw_memory(Trace(2, spans, samples)).figure.axes[:2]:
        ends.append(max(collection.get_paths()[0].vertices[:, 0].max() for collection in ax.collections))
    assert ends == [3.0, 8.0], "rank 0 ended after 3 s: nothing is known of it from then on"


def test_what_ranks_are_counted_to_hold_has_a_look_of_its_own():
    counted = {"parameters", "gradients", "optimizer_state", "buckets", "unsharded"}
    assert counted <= KINDS.keys()
    assert len({KINDS[kind].color for kind in counted}) == len(counted), "hatching alone is hard to see in thin bands"
