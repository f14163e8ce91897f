from independent.reading import numbers, read


def brier_score(text):
    low, some, right, high, others, rest = numbers(text)
    said = [low / 100] * some + [high / 100] * others
    came = [1] * right + [0] * (some - right) + [1] * rest + [0] * (others - rest)
    return sum((one - other) ** 2 for one, other in zip(said, came, strict=True)) / len(said)


def recall_share(text):
    """The share at which the curve, read the other way round, has come to these days: bisected."""
    q = read(text, "a stability of {stability} days were reviewed {days} days ago", "decay = {decay}")

    def reached(share):
        return q.stability * (share ** (-1 / q.decay) - 1) / (0.9 ** (-1 / q.decay) - 1)

    low, high = 0.01, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > q.days else (low, middle)
    return 100 * low


def review_minutes(text):
    q = read(
        text,
        "{atoms} atoms are to be known in {days} days",
        "once for {reading} s and then asked {times} times for {seconds} s",
    )
    spent = [0.0] * q.days
    for atom in range(q.atoms):
        spent[atom % q.days] += q.reading
        for again in range(1, q.times + 1):
            spent[(atom + again) % q.days] += q.seconds
    return sum(spent) / len(spent) / 60
