"""The gaps of chapter 23: where the calls of ranks part, and which rank the others wait for."""

from collections import Counter

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

TRAIN = ["broadcast", "all_reduce", "all_reduce", "all_gather", "barrier"]
SKIPPED = ["broadcast", "all_reduce", "all_gather", "barrier"]


def wrong_calls(calls):
    """Number, from 0, of the first call that is not the same on all ranks, and a list of the odd ranks; or None."""
    for number in range(max(map(len, calls))):
        made = [own[number] if number < len(own) else None for own in calls]
        usual = Counter(made).most_common(1)[0][0]
        if odd := [rank for rank, one in enumerate(made) if one != usual]:
            return number, odd
    return None


def wrong_suspect(waited_s, exchange_s):
    """("slow rank", which), ("slow link", -1) or ("neither", -1); a wait is long from twice exchange_s on."""
    long = [waited >= 2 * exchange_s for waited in waited_s]
    if long.count(False) == 1 and len(long) > 1:
        return "slow rank", long.index(False)
    return ("slow link", -1) if all(long) else ("neither", -1)


def _last_place(calls):
    found = None
    for number in range(max(map(len, calls))):
        made = [own[number] if number < len(own) else None for own in calls]
        usual = Counter(made).most_common(1)[0][0]
        if odd := [rank for rank, one in enumerate(made) if one != usual]:
            found = number, odd
    return found


def _from_1(calls):
    found = wrong_calls(calls)
    return found and (found[0] + 1, found[1])


def _shortest_only(calls):
    for number, made in enumerate(zip(*calls, strict=False)):
        usual = Counter(made).most_common(1)[0][0]
        if odd := [rank for rank, one in enumerate(made) if one != usual]:
            return number, odd
    return None


def _against_rank_0(calls):
    for number in range(max(map(len, calls))):
        made = [own[number] if number < len(own) else None for own in calls]
        if odd := [rank for rank, one in enumerate(made) if one != made[0]]:
            return number, odd
    return None


def _longest_waits(waited_s, exchange_s):
    word, rank = wrong_suspect(waited_s, exchange_s)
    return (word, waited_s.index(max(waited_s))) if rank >= 0 else (word, rank)


def _long_above_twice(waited_s, exchange_s):
    late = [rank for rank, waited in enumerate(waited_s) if waited <= 2 * exchange_s]
    if not late:
        return "slow link", -1
    return ("slow rank", late[0]) if len(late) == 1 else ("neither", -1)


def _always_a_rank(waited_s, exchange_s):
    return "slow rank", waited_s.index(min(waited_s))


def _any_wait(waited_s, exchange_s):
    if all(waited >= 2 * exchange_s for waited in waited_s):
        return "slow link", -1
    return "slow rank", waited_s.index(min(waited_s))


GAPS: tuple[Exercise, ...] = (
    function_gap(
        wrong_calls,
        tests={
            "One rank skips a call": [([TRAIN, SKIPPED, TRAIN],), ([TRAIN, TRAIN, TRAIN, SKIPPED],)],
            "Rank 0 is the odd one": [([SKIPPED, TRAIN, TRAIN],), ([["barrier"], ["all_reduce"], ["all_reduce"]],)],
            "Ranks end early": [([TRAIN, TRAIN[:2], TRAIN],), ([TRAIN, TRAIN[:3], TRAIN, TRAIN[:3], TRAIN],)],
            "All the same": [([TRAIN] * 3,), ([[], []],)],
        },
        mistakes={
            "Behind the first difference everything is shifted. Stop at the first.": _last_place,
            "Calls are numbered from 0.": _from_1,
            "A rank that has made fewer calls differs as well: at the call that it never made.": _shortest_only,
            "Rank 0 may be the odd one: what do most of the ranks call?": _against_rank_0,
        },
    ),
    function_gap(
        wrong_suspect,
        tests={
            "One waits least": [([0.9, 0.1, 0.8, 0.9], 0.1), ([0.4, 0.5, 0.6, 0.1], 0.1)],
            "All wait alike": [([0.8, 0.9, 0.8, 0.85], 0.1), ([2.0, 2.0], 0.5)],
            "Exactly twice": [([1.0, 0.5, 1.0], 0.5), ([1.0, 1.0], 0.5)],
            "Nobody waits long": [([0.11, 0.1, 0.12, 0.1], 0.1), ([0.1, 0.12, 0.9, 0.8], 0.1)],
        },
        mistakes={
            "Who waits longest is early. The others wait for the rank that waits least.": _longest_waits,
            "Two ranks that do not wait, or all of them, name nobody.": _any_wait,
            "Where all wait alike, no rank is late: the exchange itself takes long.": _always_a_rank,
            "A wait of twice exchange_s is long already.": _long_above_twice,
        },
    ),
)
