"""Chapter 03: the skeleton of a data-parallel training framework, question AC1.

Li et al. 2020, "PyTorch Distributed", section 3.1.

Every rank starts from the same weights, computes the gradient of its share of the global batch, and applies the same
averaged gradient; so all stay equal to one process that trains on the whole batch. One rank writes checkpoints.
"""

from parallel_lab.grading.drivers import batches, train_framework
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import RUN, divides_batches, equals, heard, runs_microbatches, sends
from parallel_lab.grading.oracles import TRAINED, whole_batches

MODEL_BYTES = (20 * 40 + 40 + 40 * 10 + 10) * 8
EVEN = {"options": (("steps", 3), ("batch", 12))}
UNEVEN = {"options": (("steps", 3), ("batch", 11))}  # shares of 4, 4, 3 at 3 ranks and 3, 3, 3, 2 at 4
MICRO = {"options": (("steps", 4), ("batch", 15), ("microbatches", 3))}  # shares of 8 and 7, in 3, 3, 2 and 3, 2, 2
RESUMED = {"options": (("steps", 5), ("batch", 10)), "resumed_at": 2}
MEANS = "The mean over the global batch: with uneven shares that is not the mean of the ranks' means."
DISK = "Rank 0 writes one file, `checkpoint`, when the last step is done; all ranks hold the same, so no other writes."
right = equals({"parameter": MEANS, "losses": MEANS, "disk": DISK}, TRAINED)
once = sends(
    "4 all-reduces and the start send",
    most=lambda case: 6 * MODEL_BYTES,  # two ways to start alike
    least=lambda case: 4 * MODEL_BYTES,  # 2 (n-1)/n at 2 ranks, 4 steps
    advice="Add up the gradients of the microbatches first; only the sum has to travel.",
    between=RUN,
)

EXERCISE = Exercise(
    name="training_framework",
    title="A data-parallel training framework",
    level="medium",
    minutes=60,
    notebook="03_data_parallel",
    given=batches,
    drive=train_framework,
    expected=whole_batches,
    settings={"widths": (20, 40, 10), "rows": (60,), "batches": 1},
    tests=(
        test(
            "Weights and losses are those of one process, on every rank, at 1, 2 and 3 ranks",
            on((1, 2, 3), right, **EVEN),
        ),
        test(
            "The same where the batch does not divide by the number of ranks, at 3 and 4", on((3, 4), right, **UNEVEN)
        ),
        test(
            "Each rank runs its share of each batch through the model, and no more",
            *(on(2, divides_batches(), **EVEN), on((3, 4), divides_batches(), **UNEVEN)),
        ),
        test(
            "A share is run in microbatches, whose gradients add up and travel once",
            *(on(2, right, runs_microbatches(), once, **MICRO), on(2, heard(), changed=True, **EVEN)),
        ),
        test(
            "Rank 0 writes a checkpoint to its disk, which no other rank sees, and a new run goes on from it",
            on(2, right, **RESUMED),
        ),
    ),
)
