"""Chapter 18: F1 and AUC over ranks, from what has to be exchanged (Hanley and McNeil 1982 for the pairs of AUC)."""

from parallel_lab.grading import expect, metrics
from parallel_lab.grading.exercise import Exercise, changed_on, on

CLASSES = 10
COUNTS_BYTES = 8 * CLASSES**2
ADD = "Count this rank's samples, in a matrix of the same size on every rank, and add the matrices."
SAMPLES = "What you send grows with the samples. Which numbers say all that F1 needs, however many samples there are?"
MEAN = "F1 divides by counts that other ranks change. Merge the counts first, and divide once."
ABSENT = "A class that is in no label and in no prediction, on any rank, has no F1: leave it out of the mean."
PAIRS = "A positive of one rank is compared with the negatives of all others. On which rank is such a pair?"
TIES = "A positive and a negative with the same score: a coin decides. What does such a pair count?"
MACRO = "Of each class 2 tp / (2 tp + fp + fn), from the merged counts; then the mean over the classes that occur."
EMPTY = "A rank without samples, or without one of the classes, still takes part in every call, with what it has."


def unlike(what: str, seen: str, mistake: str, advice: str):
    """The item `what` is not that of a usual mistake."""
    return expect.unlike(what, {f"{what} {seen}": {"mistake": mistake}}, advice)


counts = expect.sends(
    "gathering the counts sends",
    lambda n: (n - 1) * COUNTS_BYTES,
    lambda n: (n - 1) / n * COUNTS_BYTES / 2,
    advice=SAMPLES,
    slack=1500,
    between=metrics.CALL,
)
of_f1 = (
    unlike(metrics.F1, "is the mean of the ranks' F1", "mean", MEAN),
    unlike(metrics.F1, "is the mean of the ranks' F1, weighted by samples", "samples", MEAN),
    unlike(metrics.F1, "counts 0 for a class that does not occur", "absent", ABSENT),
)
of_auc = (
    unlike(metrics.AUC, "is the mean of the ranks' AUC", "mean", PAIRS),
    unlike(metrics.AUC, "is the mean of the ranks' AUC, weighted by samples", "samples", PAIRS),
    unlike(metrics.AUC, "is the mean of the ranks' AUC, weighted by their pairs", "pairs", PAIRS),
    unlike(metrics.AUC, "counts a tie as lost", "lost", TIES),
    unlike(metrics.AUC, "counts a tie as won", "won", TIES),
)
right = expect.equals({"counts": ADD, "f1": MACRO, "auc": PAIRS})
empty = expect.equals(EMPTY)
ONE, TWO = (metrics.COUNTS,), (metrics.COUNTS, metrics.F1)
ALL = (*TWO, metrics.AUC)
HOLES = (60, 0, 5, 44)

EXERCISE = Exercise(
    name="metrics_over_ranks",
    given=metrics.skewed,
    drive=metrics.score,
    expected=metrics.scored,
    settings={"classes": CLASSES, "sizes": (90, 35, 60, 12), "asks": ONE},
    tests={
        # Step 1
        "Every rank has the counts of all samples, at 1, 3 and 4 ranks": on((3, 1), right) + on(4, empty, sizes=HOLES),
        "Counts travel, and not samples": on(4, counts, right, sizes=(3000, 2000, 2500, 1500)) + changed_on(2),
        # Step 2
        "F1 is the mean over classes of all samples' F1": (
            on(2, *of_f1, right, asks=TWO) + on(4, empty, sizes=HOLES, asks=TWO)
        ),
        # Step 3
        "AUC compares the samples of all ranks, ties count one half": on(3, *of_auc, right, asks=ALL),
        "Ranks without samples, or without a positive, take part": on(4, empty, sizes=HOLES, lacking=3, asks=ALL),
    },
)
