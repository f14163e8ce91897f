"""Chapter 18: the perplexity of all tokens, and a loss whose averaged gradient is that of their mean."""

from parallel_lab.grading import expect, metrics
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

LOSSES = "That gives a rank with few tokens as much to say as one with many. What adds up over ranks?"
PERPLEXITIES = "exp of a mean is not the mean of exp. Add nats and tokens over ranks, divide, and take exp at the end."
PADDING = "Targets of -100 are padding: they have no loss, and are no tokens."
TOKENS = "exp(sum of nats / sum of tokens), both sums over the tokens of all ranks that are no padding."
TWO = "Of a rank, two numbers matter: how many nats, and how many tokens."
UNSCALED = "DDP divides the sum of gradients by the ranks once more. By what is the loss of a rank too small then?"
EQUAL = "DDP gives all ranks the same weight. By what do you multiply the mean of a rank with t of all tokens?"
SHARE = "n ranks, t of all tokens here: the mean times n t / tokens. The count has to be summed before the backward."
NONE = "A rank without tokens takes part with 0 nats, 0 tokens and a loss of 0; 0 / 0 is NaN, and so is NaN times 0."

number = expect.sends(
    "two numbers of 8 bytes, gathered, send", lambda n: (n - 1) * 16, lambda n: 0, advice=TWO, slack=300,
    between=metrics.CALL,
)  # fmt: skip
mistaken = expect.unlike
of_perplexity = (
    mistaken(
        metrics.PERPLEXITY, {"the perplexity is exp of the mean of the ranks' losses": {"mistake": "losses"}}, LOSSES
    ),
    mistaken(
        metrics.PERPLEXITY, {"it is the mean of the ranks' perplexities": {"mistake": "perplexities"}}, PERPLEXITIES
    ),
    mistaken(metrics.PERPLEXITY, {"the perplexity counts padding as tokens": {"mistake": "padding"}}, PADDING),
)
of_gradient = (
    mistaken(metrics.GRADIENT, {"the gradient is that of the mean of the ranks' losses": {"mistake": "losses"}}, EQUAL),
    mistaken(
        metrics.GRADIENT,
        {"the gradient is as many times too small as there are ranks": {"mistake": "unscaled"}},
        UNSCALED,
    ),
)
right = expect.equals({"perplexity": TOKENS, "average": SHARE})
none = expect.equals(NONE)
BOTH = (metrics.PERPLEXITY, metrics.GRADIENT)

EXERCISE = Exercise(
    name="uneven_perplexity",
    given=metrics.tokens,
    drive=metrics.evaluate,
    expected=metrics.evaluated,
    settings={"seq": 8, "width": 5, "vocab": 11, "asks": BOTH[:1]},
    tests={
        # Step 1
        "The perplexity is that of all tokens, at 1 to 3 ranks": on(
            cases("counts", ((40, 9),), ((30,),), ((5, 23, 61),)), *of_perplexity, right
        ),
        "Two numbers travel, and every rank takes part": (
            on(cases("counts", ((300, 900, 200, 500),)), number, right)
            + on(cases("counts", ((17, 0, 4),)), none)
            + changed_on(2, counts=(40, 9))
        ),
        # Step 2
        "The average of gradients is the gradient of the mean over all tokens": on(
            cases("counts", ((40, 9),), ((5, 23, 61),)), *of_gradient, right, asks=BOTH
        ),
        "A rank without tokens spoils neither gradient nor loss": on(cases("counts", ((17, 0, 4),)), none, asks=BOTH),
    },
)
