"""Chapter 09: reach ZB-H1 (Qi et al. 2024, "Zero Bubble Pipeline Parallelism", section 2.1)."""

from parallel_lab.grading import drivers, pipelines
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.pipeline import one_f_one_b, with_needs, zb_h1

MANY, FEW = ((4, 8), (3, 3), (2, 7), (1, 3), (6, 20)), ((4, 2), (5, 1), (8, 7))
IN_PLACE = "That is 1F1B with each B cut into I and W in place: on a later stage, which W could wait for the cool-down?"
LATER = "Where does a stage stand idle, and which W could it run there?"
ALL_LATE = "All W at the end fill the cool-down, and hold all until then. How many must stage r put off?"
TOO_FAR = "Each W put off and each forward run ahead is held: their sum should be the same on each stage."


def cut_in_place(p, m):
    """1F1B with I and W, one right after the other, in place of each B."""
    halves = {"F": "F", "B": "IW"}
    return with_needs([[op._replace(kind=k) for op in row for k in halves[op.kind]] for row in one_f_one_b(p, m).rows])


ends = pipelines.runs_each_once("F", "I", "W")
takes = pipelines.takes(zb_h1, "ZB-H1", {IN_PLACE: cut_in_place}, LATER)
holds = pipelines.holds(zb_h1, "ZB-H1", ALL_LATE, TOO_FAR)

EXERCISE = Exercise(
    name="schedule_zb_h1",
    given=drivers.calls,
    drive=drivers.call_each,
    device="cpu",
    settings={"calls": (MANY,)},
    tests={
        "Each stage runs each F, I and W once, and the order comes to an end": on(1, ends),
        "A step takes 3 m + p - 1, where 1F1B takes 3 m + 3 (p - 1)": on(1, ends, takes),
        "No stage holds more than p microbatches, as the first stage of 1F1B does": on(1, ends, holds),
        "Both with fewer microbatches than stages": on(1, ends, takes, holds, calls=(FEW,)),
    },
)
