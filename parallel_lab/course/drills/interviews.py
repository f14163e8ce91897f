"""Drills of chapter 24: how sure one was, what is still recalled, how many minutes reviews take."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem

DECAY = 0.1542  # the exponent of FSRS's forgetting curve


@problem("brier-score", chapter="24")
def brier_score(dice: Random) -> Drawn:
    """The Brier score of answers given with two confidences."""
    low, high = dice.choice((50, 60, 70)), dice.choice((80, 90, 95))
    some, others = dice.choice((10, 20, 30)), dice.choice((40, 50, 60))
    right, rest = round(some * dice.choice((0.3, 0.5, 0.7))), round(others * dice.choice((0.6, 0.7, 0.9)))
    groups = ((low / 100, some, right), (high / 100, others, rest))
    squares = sum(n * (1 - p) ** 2 + (count - n) * p**2 for p, count, n in groups)
    answer = squares / (some + others)
    plain = sum(n * (1 - p) + (count - n) * p for p, count, n in groups) / (some + others)
    apart = sum((n / count - p) ** 2 for p, count, n in groups) / 2
    return Drawn(
        question=f"You said {low} % for {some} answers and were right in {right} of them. You said {high} % for"
        f" {others} answers and were right in {rest}. What is your Brier score, one square for each answer?",
        answer=answer,
        steps=(
            "A right answer adds (1 - said) squared, a wrong one said squared.",
            f"The sum of the squares is {squares:,.5g}, over {some + others} answers.",
            f"{squares:,.5g} / {some + others} = {answer:,.5g}.",
        ),
        wrong=(
            (plain, "Those are the distances themselves. The score takes the mean of their squares."),
            (2 * answer, "You counted both outcomes, as Brier did. Here it is one square for each answer."),
            (apart, "You compared the shares of the two groups. The score looks at each answer."),
        ),
    )


@problem("recall-share", chapter="24")
def recall_share(dice: Random) -> Drawn:
    """What is still recalled some time after a review."""
    stability, times = dice.choice((4, 6, 10, 20, 30, 46)), dice.choice((2, 3, 4, 5, 6))
    days = stability * times
    factor = 0.9 ** (-1 / DECAY) - 1
    answer = 100 * (1 + factor * times) ** -DECAY
    return Drawn(
        question=f"Atoms of a stability of {stability} days were reviewed {days} days ago. By the curve of FSRS, a"
        f" power of time with decay = {DECAY}, nine in ten are recalled after as many days as the stability. How many"
        " per cent are recalled now?",
        answer=answer,
        unit="%",
        tolerance=0.01,
        steps=(
            f"days / stability = {days} / {stability} = {times}.",
            f"0.9^(-1/{DECAY}) - 1 = {factor:.4g}.",
            f"100 · (1 + {factor:.4g} · {times})^(-{DECAY}) = {answer:.4g} %.",
        ),
        wrong=(
            (100 * 0.9**times, "You let nine in ten be kept again and again. The curve falls more slowly than that."),
            (100 - 10 * times, "You let it fall along a line. The curve falls quickly first and slowly then."),
            (100 * (1 + (factor + 1) * times) ** -DECAY, "You left out the minus one behind the power."),
        ),
    )


@problem("review-minutes", chapter="24")
def review_minutes(dice: Random) -> Drawn:
    """How many minutes a day it takes to keep atoms until a date."""
    atoms, days = dice.choice((120, 240, 360, 480)), dice.choice((20, 30, 40, 60))
    times, seconds, reading = dice.choice((4, 5, 6)), dice.choice((20, 30, 40)), dice.choice((60, 90, 120))
    total_s = atoms * (reading + times * seconds)
    answer = total_s / days / 60
    return Drawn(
        question=f"{atoms} atoms are to be known in {days} days. Each is read once for {reading} s and then asked"
        f" {times} times for {seconds} s. How many minutes a day is that on average?",
        answer=answer,
        unit="min",
        steps=(
            f"One atom: {reading} + {times} · {seconds} = {reading + times * seconds} s.",
            f"All of them: {atoms} · {reading + times * seconds} = {total_s:,} s.",
            f"{total_s:,} / {days} / 60 = {answer:,.5g} minutes a day.",
        ),
        wrong=(
            (atoms * (reading + seconds) / days / 60, "You counted one asking of each atom."),
            (atoms * times * seconds / days / 60, "You left out the reading."),
            (total_s / days, "Those are seconds."),
        ),
    )
