"""Chapter 03: the skeleton of a data-parallel training framework, question AC1 (Li et al. 2020, section 3.1)."""

from parallel_lab.grading import drivers, expect, oracles
from parallel_lab.grading.exercise import Exercise, changed_on, on

MODEL_BYTES = (20 * 40 + 40 + 40 * 10 + 10) * 8
EVEN = {"options": (("steps", 3), ("batch", 12))}
UNEVEN = {"options": (("steps", 3), ("batch", 11))}  # shares of 4, 4, 3 at 3 ranks and 3, 3, 3, 2 at 4
MICRO = {"options": (("steps", 4), ("batch", 15), ("microbatches", 3))}  # shares of 8 and 7, in 3, 3, 2 and 3, 2, 2
RESUMED = {"options": (("steps", 5), ("batch", 10)), "resumed_at": 2}
ALIKE = "Do all ranks begin with rank 0's weights, and are the loss and every gradient those of the whole batch?"
MEANS = "The mean over the global batch: with uneven shares that is not the mean of the ranks' means."
GOES_ON = (
    "A run goes on from the weights, the step, and the optimizer's state: does the checkpoint bring back all three?"
)
DISK = "Rank 0 writes one file, `checkpoint`, when the last step is done; all ranks hold the same, so no other writes."
divides = expect.divides_batches()
once_a_step = expect.sends(
    "4 all-reduces and the start send",
    most=lambda n: 6 * MODEL_BYTES,  # there is more than one way to start alike
    least=lambda n: 4 * MODEL_BYTES,  # 2 (n-1)/n at 2 ranks, 4 steps
    advice="Add up the gradients of the microbatches first; only the sum has to travel.",
    between=expect.RUN,
)


def right(advice: str) -> expect.Grader:
    """Weights and losses are those of one process; `advice` is for a test in which they are not."""
    return expect.equals({"parameter": advice, "the loss of step": advice, "disk": DISK})


EXERCISE = Exercise(
    name="training_framework",
    given=drivers.batches,
    drive=drivers.train_framework,
    expected=oracles.whole_batches,
    settings={"widths": (20, 40, 10), "rows": (60,), "batches": 1},
    tests={
        # Step 1
        "Weights and losses are those of one process, on every rank, at 1, 2 and 3 ranks": on(
            (1, 2, 3), right(ALIKE), **EVEN
        ),
        "Each rank runs its share of each batch, and no more; what it receives counts": (
            on((2, 3), divides, right(ALIKE), **EVEN) + changed_on(2, **EVEN)
        ),
        # Step 2
        "The same where the batch does not divide by the number of ranks, at 3 and 4": on(
            (3, 4), divides, right(MEANS), **UNEVEN
        ),
        # Step 3
        "A share is run in microbatches, whose gradients add up and travel once": on(
            2, divides, once_a_step, right(MEANS), **MICRO
        ),
        # Step 4
        "Rank 0 writes a checkpoint to a disk that no other sees, and a new run goes on from it": on(
            2, right(GOES_ON), **RESUMED
        ),
    },
)
