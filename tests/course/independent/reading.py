"""What the independent computations share: numbers out of a question's text, a ring, a pipeline's idle time.

Nothing here knows a drill's formula: a ring is carried out message by message, a pipeline is simulated, and a number
that a condition asks for is searched.
"""

import re
from fractions import Fraction
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from parallel_lab.pipeline import interleaved, one_f_one_b
from parallel_lab.simulate import PassCost, simulate

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?"
_FIELD = re.compile(r"\{(\w*)(:w)?\}")


def read(text: str, *fragments: str) -> Any:
    """The numbers (and with `{name:w}` the words) that `fragments` ask of `text`, which must hold each of them."""
    found = SimpleNamespace()
    for fragment in fragments:
        match = re.search(_pattern(fragment), text)
        assert match, f"the question does not say {fragment!r}: {text}"
        vars(found).update({name: _value(part) for name, part in match.groupdict().items()})
    return found


def says(text: str, fragment: str) -> bool:
    """Whether `text` holds the fragment."""
    return re.search(_pattern(fragment), text) is not None


def numbers(text: str) -> list[float]:
    """All numbers of a text, in their order."""
    return [_value(part) for part in re.findall(_NUMBER, text)]


def _pattern(fragment: str) -> str:
    at, pieces = 0, []
    for field in _FIELD.finditer(fragment):
        kind = r"[\w-]+" if field[2] else _NUMBER
        pieces += [re.escape(fragment[at : field.start()]), f"(?P<{field[1]}>{kind})" if field[1] else kind]
        at = field.end()
    return "".join([*pieces, re.escape(fragment[at:])])


def _value(part: str) -> Any:
    try:
        number = float(part.replace(",", ""))
    except ValueError:
        return part
    return int(number) if number == int(number) and "." not in part else number


@cache
def ring_rounds(n: int) -> int:
    """The messages of S/n that follow one another in a ring all-reduce, counted by carrying it out with counters."""
    chunk, ranks_in, rounds = np.arange(n), np.ones(n, dtype=int), 0  # what each rank sends next, and who is in it
    while ranks_in.min() < n:
        chunk, ranks_in = np.roll(chunk, 1), np.roll(ranks_in, 1) + 1  # the neighbor adds its own
        rounds += 1
    held = {int(chunk[0])}  # the whole chunks of rank 0; the others' are the same, turned
    while len(held) < n:
        chunk = np.roll(chunk, 1)
        held.add(int(chunk[0]))
        rounds += 1
    return rounds


def ring_sent(n: int, size: float) -> float:
    """What each rank of a ring all-reduce of `size` sends."""
    return ring_rounds(n) * size / n


def half_ring_sent(n: int, size: float) -> float:
    """What each rank of a ring all-gather or reduce-scatter sends: half of an all-reduce."""
    return ring_sent(n, size) / 2


@cache
def steps_of(p: int, m: int, v: int = 1) -> float:
    """The length of a simulated step of 1F1B in units of what one rank computes for one microbatch."""
    plan = one_f_one_b(p, m) if v == 1 else interleaved(p, m, v)
    return simulate(plan, PassCost(forward_s=1 / v, backward_s=2 / v)).duration_s / 3


@cache
def idle(p: int, v: int = 1) -> float:
    """The idle time of a rank, in the same units, whatever the number of microbatches."""
    short, long = steps_of(p, p, v) - p, steps_of(p, 2 * p, v) - 2 * p
    assert abs(short - long) < 1e-9, "the idle time depends on m"
    return long


def fewest_parts(size: int, room: Fraction) -> int:
    """Into how many equal parts `size` must be cut at least for one to fit into `room`; counted up."""
    parts = 1
    while Fraction(size, parts) > room:
        parts += 1
    return parts


def least(holds: Any, low: float, high: float) -> float:
    """Where `holds`, false at `low` and true at `high`, begins to hold; by bisection."""
    assert not holds(low) and holds(high)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def lowest(cost: Any, low: float, high: float) -> float:
    """Where `cost`, which falls and then rises, is lowest; by golden section."""
    ratio = (5**0.5 - 1) / 2
    while high - low > 1e-9 * high:
        one, two = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, two) if cost(one) < cost(two) else (one, high)
    return (low + high) / 2


# What a GPT layer keeps per token and unit of width for its backward pass (Korthikanti et al. 2022, section 4.1), with
# fused attention: the bytes of each tensor, and whether tensor parallelism cuts it.
KEPT = {
    "input of the first norm": (2, False),
    "input of QKV": (2, False),
    "Q and K": (4, True),
    "V": (2, True),
    "input of the projection": (2, True),
    "mask of attention's dropout": (1, False),
    "input of the second norm": (2, False),
    "input of the MLP": (2, False),
    "input of GELU": (8, True),
    "input of the second product": (8, True),
    "mask of the MLP's dropout": (1, False),
}
PRODUCTS = ((1, 3), (1, 1), (1, 4), (4, 1))  # the matrices of a GPT block, in units of its width
