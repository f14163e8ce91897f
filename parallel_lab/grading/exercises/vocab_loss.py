"""Chapter 08: cross-entropy over a vocabulary that is cut over the ranks (Shoeybi et al. 2019, section 3)."""

from parallel_lab.grading import cutting, expect, whole
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

TOKENS, VOCAB = 48, 96
ADD = "Largest logit, sum of exponentials and target's logit are over all columns: what does one rank know of them?"
MAXIMUM = "Sums of exponentials can be added when all ranks subtracted the same number."
MASK = "A target lies on one rank; the others have to add zero for it."
COUNT = "The mean is over the targets that count: how many are not -100?"
OWN = "softmax minus one-hot, of the own columns; each rank has the whole loss, and what follows it is the same on all."
FINITE = "exp(1000) is infinite: subtract the largest logit of the row first, over all ranks."
THREE = (
    "Largest logit, sum of exponentials, logit of the target: three numbers per token. All logits stay where they are."
)
NOTHING = "When forward is over each rank has all that the gradient of its columns needs."
E = TOKENS * 8  # bytes of a number per token


def mistake(words: str, setting: str, advice: str):
    """The loss is not that of a usual mistake."""
    return expect.unlike("the loss", {words: {setting: True}}, advice)


forward = expect.sends(
    "three numbers per token send",
    lambda n: 6 * (n - 1) / n * E,
    lambda n: 2 * (n - 1) / n * E,
    advice=THREE,
    slack=100,
    between=cutting.FORWARD,
)
backward = expect.sends("the gradient of the logits needs", lambda n: 0, advice=NOTHING, between=cutting.BACKWARD)
right = expect.equals({"the loss": ADD, "logits": OWN})
maximum = mistake("each rank subtracted the largest of its own logits", "own_maximum", MAXIMUM)
unmasked = mistake("a target counted on ranks that do not have it", "unmasked", MASK)
counted = mistake("the mean was over all targets, ignored ones too", "counted", COUNT)

EXERCISE = Exercise(
    name="vocab_loss",
    given=cutting.logits_and_targets,
    drive=cutting.lose,
    expected=whole.whole_loss,
    settings={"tokens": TOKENS, "vocab": VOCAB, "size": 1.0},
    tests={
        # Step 1
        "The loss is that of one process, at 1 to 3 ranks": on((2, 1, 3), maximum, unmasked, right, forward=True),
        # Step 2
        "Each rank has the gradient of its own logits": on((2, 4), right),
        "Logits a thousand times as large give a finite loss": on(2, expect.equals(FINITE), size=1000.0),
        # Step 3
        "Three numbers per token travel in forward, and nothing in backward": (
            on(4, forward, backward) + on(2, forward, backward) + changed_on(2)
        ),
        "Ignored targets do not count; any vocabulary does, also of fewer tokens than ranks": (
            on(2, counted, right, ignored=True)
            + on(cases("ranks vocab", (3, 50), (4, 3)), expect.equals(), ignored=True)
        ),
    },
)
