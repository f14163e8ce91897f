"""The gaps of chapter 00: how large a model the network allows, and which rank the others wait for."""

from statistics import median

from parallel_lab.grading.gaps.forms import function_gap


def largest_model(sent_bytes, n, item_bytes):
    """The most parameters whose gradients n ranks can all-reduce by a ring, if each may send `sent_bytes`."""
    return sent_bytes * n // (2 * (n - 1) * item_bytes)


def held_up_by(waits_s):
    """The rank whose median wait is at most half that of each other rank; None if there is none."""
    return _clearly_least([median(own) for own in waits_s])


def _clearly_least(waited_s):
    least, second = sorted(waited_s)[:2]
    return waited_s.index(least) if 2 * least <= second else None


def _less_than_half(waits_s):
    typical = [median(own) for own in waits_s]
    least, second = sorted(typical)[:2]
    return typical.index(least) if 2 * least < second else None


def _clearly_most(waited_s):
    second, most = sorted(waited_s)[-2:]
    return waited_s.index(most) if most >= 2 * second else None


def _less_than_most(waits_s):
    typical = [median(own) for own in waits_s]
    return typical.index(min(typical)) if 2 * min(typical) <= median(sorted(typical)[1:]) else None


def _met_exactly(dice):
    return [(4_000_000, 2, 4), *((dice.randrange(10_000, 1_000_000, 2) * size, 2, size) for size in (2, 8))]


def _with_room(dice):
    """Room for equal chunks and most of a parameter: floats, or a ring that rounds chunks, come to the same number."""
    found = []
    for n, item_bytes in ((8, 4), (3, 4), (4, 2), (64, 2), (16, 8)):
        per_parameter = 2 * (n - 1) / n * item_bytes
        found.append((int(per_parameter * (n * dice.randrange(10_000, 100_000) + 0.75)), n, item_bytes))
    return found


def _waits(dice, ranks, slow=(), paused=()):
    """Seconds waited in each of five all-reduces of 50 ms; `slow` ranks come 200 ms late, `paused` (rank, step) 3 s.

    Ranks differ by 4 ms or more besides and from step to step by 1, so that medians and sums have the same order.
    """
    usual_ms = [4 * place + 200 * (rank in slow) for rank, place in enumerate(dice.sample(range(ranks), ranks))]
    found = [[] for _ in range(ranks)]
    for step in range(5):
        late_ms = [usual_ms[rank] + dice.randrange(2) + 3000 * ((rank, step) in paused) for rank in range(ranks)]
        for own, late in zip(found, late_ms, strict=True):
            own.append((50 + max(late_ms) - late) / 1000)
    return found


_SIZES = {  # wrong answers before they are rounded, as functions of bytes, ranks and bytes per number
    "You counted one half. A ring goes round twice: it adds up, and then hands round what was added up.": (
        lambda sent, n, item: sent * n / ((n - 1) * item)
    ),
    "You let a rank send the gradient just once. On more than two ranks a ring sends more.": (
        lambda sent, n, item: sent / item
    ),
    "You let a rank send the gradient twice. In each half of the ring it leaves one of the n pieces out.": (
        lambda sent, n, item: sent / (2 * item)
    ),
    "You let a rank send its whole gradient to each other rank. A ring adds up on the way.": (
        lambda sent, n, item: sent / ((n - 1) * item)
    ),
    "These are the bytes of all ranks together. The limit holds for each rank.": (
        lambda sent, n, item: sent / (2 * (n - 1) * item)
    ),
    "The bytes that a ring sends are given, those of the gradient are not. Which of them are more?": (
        lambda sent, n, item: 2 * (n - 1) * sent / (n * item)
    ),
    "You multiplied by the bytes of a number. Bytes are given and numbers are asked for: which of them are fewer?": (
        lambda sent, n, item: sent * n * item / (2 * (n - 1))
    ),
    "These are bytes. How many has each number of the gradient?": lambda sent, n, item: sent * n / (2 * (n - 1)),
}


def _whole(wrong):
    return lambda sent_bytes, n, item_bytes: int(wrong(sent_bytes, n, item_bytes))


GAPS = (
    function_gap(
        largest_model,
        tests={
            "Two ranks, and a limit that is met exactly": _met_exactly,
            "More ranks, and a little room that is left": _with_room,
        },
        mistakes={
            **{said: _whole(wrong) for said, wrong in _SIZES.items()},
            **{f"{said} And return a whole number.": wrong for said, wrong in _SIZES.items()},
            "There is no part of a parameter: return a whole number.": (
                lambda sent_bytes, n, item_bytes: sent_bytes * n / (2 * (n - 1) * item_bytes)
            ),
            "The last parameter is one too many: with it a rank sends more than it may.": (
                lambda sent_bytes, n, item_bytes: -(-sent_bytes * n // (2 * (n - 1) * item_bytes))
            ),
        },
    ),
    function_gap(
        held_up_by,
        tests={
            "One rank is slow": lambda dice: [
                ([[0.25, 0.31, 0.28], [0.05, 0.06, 0.05], [0.27, 0.25, 0.3]],),
                ([[0.25] * 3, [0.125] * 3],),  # half as long is short enough
                (_waits(dice, 2, slow=[0]),),
                *((_waits(dice, 4, slow=[rank]),) for rank in (0, 3)),
            ],
            "None is, or two are": lambda dice: [
                ([[0.06, 0.05, 0.06], [0.05, 0.06, 0.05], [0.07, 0.06, 0.07]],),
                (_waits(dice, 4),),
                (_waits(dice, 4, slow=[0, 2]),),
                (_waits(dice, 5, slow=[1, 4]),),
            ],
            "A rank pauses once": lambda dice: [
                ([[0.05, 3.1, 0.06], [0.06, 0.05, 0.05], [0.05, 3.09, 0.06]],),
                (_waits(dice, 3, slow=[1], paused=[(0, 0)]),),
                (_waits(dice, 4, slow=[2], paused=[(3, 4)]),),
                (_waits(dice, 4, paused=[(1, 0)]),),
            ],
        },
        mistakes={
            "At most half: that includes just half.": _less_than_half,
            "Ranks are counted from 0.": (lambda waits_s: None if (rank := held_up_by(waits_s)) is None else rank + 1),
            "That is how long the rank waits. Which rank is it?": (
                lambda waits_s: None if held_up_by(waits_s) is None else min(median(own) for own in waits_s)
            ),
            "Who waits long came early. For whom did it wait?": (
                lambda waits_s: (typical := [median(own) for own in waits_s]).index(max(typical))
            ),
            "One late rank makes all the others wait. Look for one short wait, not for one long one.": (
                lambda waits_s: _clearly_most([median(own) for own in waits_s])
            ),
            "Somebody always waits least, also where no rank is slow. When is there none to name?": (
                lambda waits_s: (typical := [median(own) for own in waits_s]).index(min(typical))
            ),
            "One long wait outweighs all the short ones in a sum. Which wait is typical?": (
                lambda waits_s: _clearly_least([sum(own) for own in waits_s])
            ),
            "One long wait outweighs all others in a sum. And some sum is the least, also where no rank is slow.": (
                lambda waits_s: (sums := [sum(own) for own in waits_s]).index(min(sums))
            ),
            "In an `if` rank 0 counts as false: compare with None.": lambda waits_s: held_up_by(waits_s) or None,
            "That is the first all-reduce alone. A rank that was late then may be quick in all the others.": (
                lambda waits_s: _clearly_least([own[0] for own in waits_s])
            ),
            "Where two ranks are late, neither waits at most half as long as the other.": _less_than_most,
        },
    ),
)
