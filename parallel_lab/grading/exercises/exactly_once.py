"""Chapter 16: an order of samples that is exactly once, also over a restart on another number of ranks (D11, F27)."""

from parallel_lab.grading import orders
from parallel_lab.grading.exercise import Exercise, on

BATCH = (
    "A global batch is shared out: sizes differ by one at most, nothing is padded, and a batch may reach into the next "
    "epoch."
)
ONCE = (
    "Think of one endless sequence, epoch after epoch. Which places of it are this step's, which of them this rank's?"
)
RESTART = "What is counted must mean the same to 4 ranks and to 3: how far have all of them come together, in samples?"
AGAIN = "A new epoch is a new permutation, and a new seed as well: what is it drawn from?"
ALIKE = "All ranks must shuffle in the same way: a rank takes its share of one order. What may the seed not depend on?"
STATE = "Rank 0's state is what the checkpoint keeps, and any number of ranks goes on from it."
SMALL = "What was seen follows from the seed and from one number."
again = {"batch": BATCH, "once": RESTART}

EXERCISE = Exercise(
    name="exactly_once",
    given=orders.sizes,
    drive=orders.observe,
    device="cpu",
    tests={
        # Step 1
        "Every sample once an epoch, at 1 to 4 ranks": on(
            1, orders.once({"batch": BATCH, "once": ONCE}), look="worlds"
        ),
        "Another order each epoch, and the same batches at any number of ranks": on(
            1, orders.shuffled(AGAIN, ALIKE), look="worlds"
        ),
        # Step 2
        "Nothing is lost or doubled by restarts on another number of ranks": on(1, orders.once(again), look="restarts"),
        "One small state for all ranks": on(1, orders.one_small_state(STATE, SMALL), look="restarts"),
    },
)
