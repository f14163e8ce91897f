"""`rank_layouts`: no bubble, forward sums alone, a fast link across nodes, a data sum each microbatch, what fits."""

import numpy as np
import pytest
import torch
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

from parallel_lab.grading.rank_side import Case
from parallel_lab.grading.ranked import five_layouts, held_bytes

by_value(__name__)
NAME = "rank_layouts"
rank_layouts = solutions(NAME)[NAME]


def answer(model, machine, layouts, bubble=True, sums=4, node=8, data=None, fits=True, flight=True):
    """The solution, with a part of it wrong."""
    rows = []
    for place, layout in enumerate(layouts):
        pp, dp, tp, microbatch = layout["pp"], layout["dp"], layout["tp"], layout["microbatch"]
        tokens, m = microbatch * model["seq"], model["batch"] // (dp * microbatch)
        own, layers = model["parameters"] / (pp * tp), model["layers"] / pp
        tensor_link = machine["fast_bytes_per_s" if tp <= node else "slow_bytes_per_s"]
        data_link = machine["fast_bytes_per_s" if tp * dp <= 8 and data != "slow" else "slow_bytes_per_s"]
        stage_s = 6 * own * tokens / machine["flops_per_s"]
        stage_s += sums * layers * 2 * (tp - 1) / tp * 2 * tokens * model["width"] / tensor_link
        data_s = 2 * (dp - 1) / dp * 2 * own / data_link * (m if data == "each" else 1)
        kept = (min(pp, m) if flight else 1) * 34 * tokens * model["width"] * layers / tp
        if not fits or 6 * own + 12 * own / dp + kept <= machine["memory_bytes"]:
            rows.append([place, (m + (pp - 1) * bubble) * stage_s + data_s])
    return sorted(rows, key=lambda row: row[1])


def no_bubble(model, machine, layouts):
    return answer(model, machine, layouts, bubble=False)


def forward_alone(model, machine, layouts):
    return answer(model, machine, layouts, sums=2)


def nvlink_everywhere(model, machine, layouts):
    return answer(model, machine, layouts, node=64)


def data_sum_each_microbatch(model, machine, layouts):
    return answer(model, machine, layouts, data="each")


def whether_or_not_they_fit(model, machine, layouts):
    return answer(model, machine, layouts, fits=False)


def one_microbatch_in_flight(model, machine, layouts):
    return answer(model, machine, layouts, flight=False)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (no_bubble, 0, r"layout \d \(pp=.*takes [\d.]+ s, expected [\d.]+ s\n.*Those are the m microbatches alone"),
    (forward_alone, 1, r"expected [\d.]+ s\n.*the forward pass. How many does the backward"),
    (nvlink_everywhere, 1, r"expected [\d.]+ s\n.*Which link does a ring of 16 take"),
    (data_sum_each_microbatch, 1, r"expected [\d.]+ s\n.*over ranks once a step"),
    (whether_or_not_they_fit, 2, r"is ranked, and does not fit\n.*it does not run"),
    (one_microbatch_in_flight, 2, r"is ranked, and does not fit\n.*before one comes back"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def places_alone(model, machine, layouts):
    return [place for place, _ in answer(model, machine, layouts)]


def not_a_number(model, machine, layouts):
    return [(place, float("nan")) for place, _ in answer(model, machine, layouts)]


def unsorted(model, machine, layouts):
    return sorted(answer(model, machine, layouts))


def another_place(model, machine, layouts):
    return [(9, 1.0), *answer(model, machine, layouts)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda model, machine, layouts: None, r"got None\n.*Return a list of pairs"),
        (places_alone, r"got \[\d.*\]\n.*Return a list of pairs"),
        (not_a_number, r"takes nan s, expected"),
        (another_place, r"layout 9 is ranked; there are those from 0 to 4\n.*Return a list of pairs"),
    ],
)
def test_what_is_no_ranking_is_said(wrong, said):
    assert_found_out(NAME, wrong, 0, said)


def slowest_first(model, machine, layouts):
    return answer(model, machine, layouts)[::-1]


def test_another_order_is_said():
    assert_found_out(NAME, slowest_first, 0, r"the order is \[.*\], expected \[.*\n.*The times are right")


def data_ring_on_the_slow_link(model, machine, layouts):
    return answer(model, machine, layouts, data="slow")


def test_a_data_ring_inside_a_node_is_asked_for():
    assert_found_out(NAME, data_ring_on_the_slow_link, 1, r"may still share a node")


def with_numpy(model, machine, layouts):
    """Not a cheat: numbers of numpy, pairs as tuples, and of layouts that take equally long the last first."""
    rows = sorted(answer(model, machine, layouts), key=lambda row: (row[1], -row[0]))
    return [(place, np.float64(seconds)) for place, seconds in rows]


def test_another_right_answer_passes():
    assert_passes(NAME, with_numpy)


@pytest.mark.parametrize("seed", range(5))
def test_memory_is_so_tight_that_it_matters_what_is_counted(seed):
    """GB taken for GiB, or a few percent more, change what fits on one of the four ranks."""
    case = Case(4, (("kind", "memory"),))
    more = less = False
    for rank in range(4):
        model, machine, layouts = five_layouts(case, rank, torch.Generator().manual_seed(64 * seed + rank))
        held = [held_bytes(model, one) / machine["memory_bytes"] for one in layouts]
        more = more or any(1 < share <= 2**30 / 1e9 for share in held)
        less = less or any(1e9 / 2**30 < share <= 1 for share in held)
    assert more and less


def compute_alone(model, machine, layouts):
    return answer(model, machine | {"memory_bytes": float("inf")}, layouts, sums=0, data="slow")


def without_memory(model, machine, layouts):
    return answer(model, machine, layouts, fits=False)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, compute_alone, "compute its parts by hand")
    assert_ends_a_step(NAME, 2, without_memory, "it does not run")
