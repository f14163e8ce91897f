"""The gaps of chapter 19: where a log was changed, and a number that nobody can read but in the sum."""

import hashlib

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap


def _digest(before, text):
    return hashlib.sha256((before + text).encode()).hexdigest()[:8]


def _chain(*texts):
    entries, before = [], ""
    for text in texts:
        before = _digest(before, text)
        entries.append((text, before))
    return entries


SOUND = _chain("alice saved step 100", "bob read step 100", "bob removed step 50")
FALSE = _chain("alice saved step 100", "carol read step 100", "bob removed step 50")
HEAD = SOUND[-1][1]
EDITED = [SOUND[0], ("carol read step 100", SOUND[1][1]), SOUND[2]]
REHASHED = [SOUND[0], FALSE[1], SOUND[2]]
TORN_OUT = [SOUND[0], SOUND[2]]
TWICE = [("eve saved step 100", SOUND[0][1]), ("carol read step 100", SOUND[1][1]), SOUND[2]]


def sec_first_break(entries, head):
    """The place of the first entry whose digest does not follow; their number if only the head differs; else None."""
    before = ""
    for place, (text, digest) in enumerate(entries):
        if digest != _digest(before, text):
            return place
        before = digest
    return None if before == head else len(entries)


def sec_masked(value, rank, masks, modulus):
    """What a rank sends: its value, plus the masks shared with higher ranks, minus those with lower ones."""
    above, below = masks[rank][rank + 1 :], masks[rank][:rank]
    return (value + sum(above) - sum(below)) % modulus


def _texts_alone(entries, head):
    for place, (text, digest) in enumerate(entries):
        if digest != _digest("", text):
            return place
    return None if entries[-1][1] == head else len(entries)


def _no_head(entries, head):
    place = sec_first_break(entries, head)
    return None if place == len(entries) else place


def _head_alone(entries, head):
    return None if entries[-1][1] == head else len(entries)


def _reversed(value, rank, masks, modulus):
    return (value + sum(masks[rank][:rank]) - sum(masks[rank][rank + 1 :])) % modulus


def _all_added(value, rank, masks, modulus):
    return (value + sum(masks[rank][:rank]) + sum(masks[rank][rank + 1 :])) % modulus


def _no_modulus(value, rank, masks, modulus):
    return value + sum(masks[rank][rank + 1 :]) - sum(masks[rank][:rank])


def _neighbor(value, rank, masks, modulus):
    above = masks[rank][rank + 1] if rank + 1 < len(masks) else 0
    below = masks[rank][rank - 1] if rank else 0
    return (value + above - below) % modulus


TWO = ((0, 150), (150, 0))
MASKS = ((0, 91, 14, 60), (91, 0, 77, 5), (14, 77, 0, 38), (60, 5, 38, 0))  # masks[i][j] is shared by ranks i and j

GAPS: tuple[Exercise, ...] = (
    function_gap(
        sec_first_break,
        tests={
            "A sound log": [(SOUND, HEAD), (SOUND[:1], SOUND[0][1])],
            "An entry was edited, edited with its digest, or taken out; or two were edited": [
                (EDITED, HEAD),
                (REHASHED, HEAD),
                (TORN_OUT, HEAD),
                (TWICE, HEAD),
            ],
            "All digests were computed again, or the end was cut off": [(FALSE, HEAD), (SOUND[:2], HEAD)],
        },
        mistakes={
            "Each digest covers the digest before it and then the text. What is the first one's?": _texts_alone,
            "Who can write the log can compute every digest again. Only the head lies elsewhere.": _no_head,
            "The last digest may be the head and an entry before it be wrong. Which one does not follow?": _head_alone,
        },
    ),
    function_gap(
        sec_masked,
        tests={
            "The lowest and the highest rank": [(17, 0, MASKS, 101), (42, 3, MASKS, 101)],
            "Ranks between": [(30, 1, MASKS, 101), (8, 2, MASKS, 101)],
            "Another modulus, and two ranks only": [
                (200, 0, TWO, 256),
                (99, 1, TWO, 256),
            ],
        },
        mistakes={
            "So the masks cancel too, if all do it. Asked is that those shared with higher ranks are added.": _reversed,
            "Two ranks share one mask. If both add it, the sum has it twice.": _all_added,
            "Without the modulus the size of what is sent says something about the value.": _no_modulus,
            "Every other rank shares a mask with this one, not only the next.": _neighbor,
        },
    ),
)
