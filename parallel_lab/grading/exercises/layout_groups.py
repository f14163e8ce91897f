"""Chapter 11: the groups of a layout (Narayanan et al. 2021, "PTD-P", section 3; experts re-cut the data ranks)."""

from parallel_lab.grading import expect, layouts
from parallel_lab.grading.exercise import Exercise, on

FLAT = ((2, 2, 1, 2, 1), (1, 4, 1, 1, 1), (2, 3, 2, 4, 1), (3, 1, 4, 2, 1))  # pp, dp, cp, tp, ep
EXPERTS = ((2, 2, 1, 2, 2), (2, 4, 1, 1, 2), (1, 2, 3, 2, 2), (1, 2, 3, 2, 3), (2, 4, 2, 2, 4))
REAL = (2, 2, 1, 2, 2)
INNER = "Ranks of tp are neighbors: count like digits, the last axis fastest. How far apart are neighbors of this axis?"
OUTER = "A step along an axis skips all ranks of the axes inside it: its stride is the product of their sizes."
DATA = "These ranks read different tokens: same stage, same rank of tp, all of dp and of cp."
SHARE = (
    "ep is no factor of the world. List the dp x cp ranks of a stage and a rank of tp, dp slowest: each ep neighbors "
    "in that list share the experts."
)
SAME = "The same experts stand at the same place of each run of ep data ranks: dp x cp / ep ranks have them."
ALL = "new_group is a collective call: every rank makes every group, in one order, also those that it is not in."
ADVICE = {"pp": OUTER, "dp": OUTER, "cp": OUTER, "tp": INNER, "dp_cp": DATA, "ep": SHARE, "edp": SAME}

EXERCISE = Exercise(
    name="layout_groups",
    given=layouts.layouts,
    drive=layouts.make_groups,
    expected=layouts.heard,
    device="cpu",
    settings={"layouts": FLAT},
    tests={
        # Step 1
        "Each rank has its group of each axis, in layouts of 4 to 48 ranks": (
            on(1, layouts.groups_are_right(layouts.AXES, ADVICE))
        ),
        # Step 2
        "The data ranks are cut once more, for gradients and for experts": (
            on(1, layouts.groups_are_right((*layouts.AXES, *layouts.CUT_AGAIN), ADVICE), layouts=EXPERTS)
        ),
        # Step 3
        "Every rank makes every group, in the same order": on(1, layouts.made_alike(ALL), layouts=EXPERTS),
        "On eight real ranks each hears the members of its groups": on(8, expect.equals(), layout=REAL),
    },
)
