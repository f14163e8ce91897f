"""Chapter 09: the order of 1F1B (Narayanan et al. 2021, "Efficient Large-Scale Language Model Training", 2.2.1)."""

from parallel_lab.grading import drivers, pipelines
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.pipeline import one_f_one_b

MANY, FEW = ((4, 8), (3, 3), (2, 7), (1, 3), (6, 20)), ((4, 2), (5, 1), (8, 7))
WARM_UP = "How many forwards must stage i have run when the first backward comes back to it from the last stage?"
ALL_FORWARDS = "That is GPipe's memory: nothing is given back before the first backward. How early could that run?"
TOO_FAR = "Each forward that a stage runs ahead is held: how many does it need until its own first backward?"

ends = pipelines.runs_each_once("F", "B")
takes = pipelines.takes(one_f_one_b, "1F1B", {}, WARM_UP)
holds = pipelines.holds(one_f_one_b, "1F1B", ALL_FORWARDS, TOO_FAR)
follows = pipelines.follows(one_f_one_b, "1F1B")

EXERCISE = Exercise(
    name="schedule_1f1b",
    given=drivers.calls,
    drive=drivers.call_each,
    device="cpu",
    settings={"calls": (MANY,)},
    tests={
        "Each stage runs each forward and backward once, and the order comes to an end": on(1, ends),
        "The bubble is (p - 1) / (m + p - 1)": on(1, ends, takes),
        "Stage i holds the activations of p - i microbatches, and not of m": on(1, ends, holds),
        "The grid is that of 1F1B": on(1, ends, follows),
        "All that with fewer microbatches than stages": on(1, ends, takes, holds, follows, calls=(FEW,)),
    },
)
