"""Chapter 19: the coordinate-wise trimmed mean of ranks' gradients, some of which are lies (Yin et al. 2018)."""

from parallel_lab.grading import expect, poisoned
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

WIDTH = 600
MEAN = "One rank can move a mean anywhere. Which values of a coordinate can you do without, if f of them may be lies?"
MEDIAN = "It bears the lies, and uses one value or two of n. The mean of all n - 2f in the middle has less noise."
ROWS = "A lie need not be long, and a row is not all lies: look at each coordinate by itself."
SIDE = "The lies may all be below, or all above. How many values must go on each side, so that no f lies are left?"
DIVISOR = "How many values of a coordinate are left when f are dropped on each side?"
RIGHT = "Sort each coordinate over the ranks, leave f values out at each end, and take the mean of the n - 2f between."
NONE = "With f = 0 nothing is left out. What does a slice from 0 to -0 hold?"
GATHER = "Each rank sends its gradient once to each other: nothing but the gradients has to travel."
DIGITS = "Is a lie left out before anything is added? Added and subtracted again it takes the other digits with it."
FINITE = "0 times infinity is NaN: a lie that is multiplied by 0 is not left out."
NAN = "NaN is neither larger nor smaller than anything. Where does torch.sort put it, and what do max and topk say?"
REFUSE = "With n <= 2f the lies may be all that is left: raise a ValueError that says so, on every rank."

SEEN = {
    "mean": ("it is the mean of all gradients, the lies among them", MEAN),
    "median": ("it is the coordinate-wise median", MEDIAN),
    "rows": ("the f longest gradients were left out whole", ROWS),
    "one side": ("of each coordinate only the f values of the largest magnitude were left out", SIDE),
    "divisor": ("the sum of the n - 2f values was divided by n", DIVISOR),
}
mistakes = [
    expect.unlike(poisoned.MEAN, {seen: {"mistake": mistake}}, advice) for mistake, (seen, advice) in SEEN.items()
]
right = expect.equals(RIGHT)
travels = expect.sends(
    "the gradients, sent to all others, come to",
    lambda n: (n - 1) * 8 * WIDTH,
    lambda n: 2 * (n - 1) / n * 8 * WIDTH,
    advice=GATHER,
    slack=700,
    between=poisoned.CALL,
)

EXERCISE = Exercise(
    name="robust_mean",
    given=poisoned.rows,
    drive=poisoned.average,
    expected=poisoned.averaged,
    settings={"width": WIDTH, "f": 1, "liars": (), "lie": "300"},
    tests={
        # Step 1
        "Of each coordinate the f largest and the f smallest values are left out, with 1 and 2 lies of 5": on(
            cases("ranks f liars", (5, 1, (0,)), (5, 2, (1, 4))), *mistakes, right
        ) + on(2, expect.equals(NONE), f=0),
        "Every rank sends its gradient to the others, and no more": on(3, travels, right) + changed_on(3),
        # Step 2
        "Nothing is left of a lie of 1e30, of infinity, or of NaN": (
            on(4, expect.equals(DIGITS), lie="1e30", liars=(3,))
            + on(4, expect.equals(FINITE), lie="infinity", liars=(1,))
            + on(4, expect.equals(NAN), lie="NaN", liars=(2,))
        ),
        "More lies than it can bear are refused": on(
            cases("ranks f", (2, 1), (4, 2)), expect.equals(REFUSE)
        ),
    },
)  # fmt: skip
