"""to_grid and parse undo each other; marks and windows show what they should."""

import pytest

from parallel_lab.pipeline import gpipe, interleaved, one_f_one_b
from parallel_lab.plan import Op, Plan, parse, recv, send, to_grid


def test_parse_without_labels():
    plan = parse("0F0 0F1 0B0\n1F0")
    assert plan.rows == ((Op(0, "F", 0, 0), Op(0, "F", 0, 1), Op(0, "B", 0, 0)), (Op(1, "F", 1, 0),))


def test_grid_is_aligned():
    assert to_grid(parse("0F0 0F10 0B0\n1F0 1B0")) == "rank 0:  0F0  0F10  0B0\nrank 1:  1F0  1B0"


def test_labels_are_aligned_at_ten_ranks():
    lines = to_grid(gpipe(11, 2)).splitlines()
    assert lines[0].startswith("rank  0:  0F0 ") and lines[10].startswith("rank 10:  10F0")
    assert len({line.index(f"{rank}F1") for rank, line in enumerate(lines)}) == 1  # columns begin together


@pytest.mark.parametrize(
    "plan",
    [
        Plan.of([]),
        Plan.of([], ranks=2),
        gpipe(3, 5),
        one_f_one_b(12, 13),
        interleaved(2, 4, 3),
        Plan.of([Op(2, "W", 2, 1)], ranks=4),
    ],
)
def test_round_trip(plan):
    assert parse(to_grid(plan)).rows == plan.rows


def test_round_trip_of_messages_pairs_them_again():
    plan = Plan.of([send(0, 1, 3, 2), recv(1, 0, 3, 2, reduce=True)])
    assert parse(to_grid(plan)) == plan


def test_marks():
    plan = parse("0F0 0F1\n1F0 1F1")
    assert to_grid(plan, Op(1, "F", 1, 0)) == "rank 0:  0F0  0F1\nrank 1: [1F0] 1F1"
    assert to_grid(plan, [Op(0, "F", 0, 1), Op(1, "F", 1, 1)]).count("[") == 2


def test_window_shows_only_what_is_near():
    text = to_grid(gpipe(9, 9), Op(4, "F", 4, 5), around=1)
    assert text.splitlines() == [
        "…",
        "rank 3:  …  3F4  3F5  3F6  …",
        "rank 4:  …  4F4 [4F5] 4F6  …",
        "rank 5:  …  5F4  5F5  5F6  …",
        "…",
    ]


def test_window_at_a_corner_has_no_gap_before_it():
    assert to_grid(gpipe(5, 5), Op(0, "F", 0, 0), around=1) == "rank 0: [0F0] 0F1  …\nrank 1:  1F0  1F1  …\n…"


def test_text_that_is_no_step_names_the_row():
    with pytest.raises(ValueError, match="rank 1: 'F1' is no step"):
        parse("0F0\nF1")


def test_label_out_of_turn():
    with pytest.raises(ValueError, match="row 1 is labeled rank 2"):
        parse("rank 0: 0F0\nrank 2: 2F0")
