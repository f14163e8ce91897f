"""`layout_groups`: the fastest axis taken for the slowest, experts far apart, one's own groups alone, another order."""

import pytest
import torch
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

by_value(__name__)
NAME = "layout_groups"
layout_groups = solutions(NAME)[NAME]
AXES = ("pp", "dp", "cp", "tp")


def made(rank, rows_of, new_group):
    mine = {}
    for axis, rows in rows_of.items():
        for row in rows:
            group = new_group(row)
            if rank in row:
                mine[axis] = group
    return mine


def rows(view, dim):
    return view.movedim(dim, -1).flatten(0, -2).tolist()


def first_fastest(rank, sizes, new_group):
    """As Megatron-LM writes an order: the axis named first is the fastest."""
    view = torch.arange(sizes["pp"] * sizes["dp"] * sizes["cp"] * sizes["tp"]).view(
        *(sizes[axis] for axis in reversed(AXES))
    )
    return made(rank, {axis: rows(view, 3 - place) for place, axis in enumerate(AXES)}, new_group)


def axes_of(sizes):
    view = torch.arange(sizes["pp"] * sizes["dp"] * sizes["cp"] * sizes["tp"]).view(*(sizes[axis] for axis in AXES))
    found = {axis: rows(view, place) for place, axis in enumerate(AXES)}
    return view, found | {"dp_cp": rows(view.flatten(1, 2), 1)}


def axes_alone(rank, sizes, new_group):
    return made(rank, axes_of(sizes)[1], new_group)


def experts_last(rank, sizes, new_group):
    """Ranks of ep far apart, those with the same experts side by side."""
    view, found = axes_of(sizes)
    again = view.flatten(1, 2).unflatten(1, (sizes["ep"], -1))
    return made(rank, found | {"ep": rows(again, 1), "edp": rows(again, 2)}, new_group)


def tp_among_the_data_ranks(rank, sizes, new_group):
    view, found = axes_of(sizes)
    found["dp_cp"] = view.flatten(1).tolist()
    return made(rank, found, new_group)


def own_alone(rank, sizes, new_group):
    """The groups of others cost nothing, and are not made."""
    return layout_groups(rank, sizes, lambda ranks: new_group(ranks) if rank in ranks else None)


def own_first(rank, sizes, new_group):
    """Made in two rounds: those that this rank is in, then the others."""
    wanted = []
    layout_groups(rank, sizes, wanted.append)
    made = {tuple(row): new_group(row) for row in sorted(wanted, key=lambda row: rank not in row)}
    return layout_groups(rank, sizes, lambda ranks: made[tuple(ranks)])


CHEATS = [  # (answer, the test that sees through it, what it says)
    (first_fastest, 0, r"the group of pp of rank 0 is \[0, 1\]; expected \[0, 4\]\n.*stride is the product"),
    (tp_among_the_data_ranks, 1, r"the group of dp_cp of rank 0 is \[0, 1, 2, 3\]; expected \[0, 2\]"),
    (experts_last, 1, r"ep=2: the group of ep of rank 0 is \[0, 2\]; expected \[0, 1\]\n.*each ep neighbors"),
    (own_alone, 2, "as its group number 0 rank 1 makes .*every rank makes every group"),
    (own_first, 2, "as its group number 0 rank 1 makes .*every rank makes every group"),
    (own_alone, 3, "would wait for each other for ever: rank 1 does not make the same groups"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, f"(?s){said}")


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, axes_alone, "the group of ep of rank 0 is missing")
    assert_ends_a_step(NAME, 2, own_alone, "every rank makes every group")
