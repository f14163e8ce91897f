"""Whether predictions are good for choosing: order within a model, what the chosen layout costs, who fits.

Spearman's rank correlation of predicted and measured times is taken over the rows of one model in a stratum. A choice
is a model on so many GPUs of one kind with one batch, where more than one layout was measured: the layout that the
planner holds for the fastest is compared with the one that was.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import mean, median
from typing import NamedTuple

from parallel_lab.planner.constants import Constants
from parallel_lab.planner.fitting import Errors, by_stratum, measured
from parallel_lab.planner.memory import room
from parallel_lab.planner.rows import Row

LEAST = 4  # rows of a model whose order says something


class Verdict(NamedTuple):
    """What came out for some rows.

    Attributes:
        strata: errors of each stratum.
        rule: errors of each under a rule with one constant: the share of the peak that the median row reached.
        ranks: of each stratum, the rank correlation within each model that has enough rows.
        regrets: of each stratum, how much slower the chosen layout is than the best, for each choice.
        whole: errors of all these rows together.
        every: the same with the rows that no term explains.
        refused: of the runs that did not fit, how many were predicted not to fit, and how many there are.
        noted: errors of rows that no term explains, which stand in none of these.
    """

    strata: dict[str, Errors]
    rule: dict[str, Errors]
    ranks: dict[str, list[float]]
    regrets: dict[str, list[float]]
    whole: Errors
    every: Errors
    refused: tuple[int, int]
    noted: list[tuple[Row, float]]


def judge(rows: Sequence[Row], constants: Constants | None = None) -> Verdict:
    """What the constants come to on `rows`."""
    found = measured(rows)
    errors = [row.error(constants) for row in found]
    times: dict[str, dict[Hashable, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    choices: dict[str, dict[Hashable, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row, error in zip(found, errors, strict=True):
        pair = ((1 + error) * row.step_s, row.step_s)
        times[row.stratum][row.model].append(pair)
        choices[row.stratum][row.choice].append(pair)
    ranks = {stratum: [rank_correlation(pairs) for pairs in models.values() if len(pairs) >= LEAST]
             for stratum, models in times.items()}  # fmt: skip
    regrets = {stratum: [regret(pairs) for pairs in groups.values() if len(pairs) > 1]
               for stratum, groups in choices.items()}  # fmt: skip
    noted = [(row, row.error(constants)) for row in rows if row.step_s and row.note]
    every = Errors.of([*errors, *(error for _, error in noted)])
    rule = by_stratum(found, one_share(found))
    return Verdict(by_stratum(found, errors), rule, ranks, regrets, Errors.of(errors), every, refused(rows), noted)


def one_share(rows: Sequence[Row]) -> list[float]:
    """The errors of FLOPs / (share x peak), where the share is the median of what all rows reached."""
    reached = [(found := row.estimate()).hfu * found.step_s / row.step_s for row in rows]
    share = median(reached)
    return [each / share - 1 for each in reached]


def regret(pairs: Sequence[tuple[float, float]]) -> float:
    """How much slower the layout with the least predicted time is than the fastest, from (predicted, measured)."""
    return min(pairs)[1] / min(measured_s for _, measured_s in pairs) - 1


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing their mean rank."""
    one, other = (_ranks([pair[side] for pair in pairs]) for side in (0, 1))
    center = (len(pairs) + 1) / 2
    covariance = sum((a - center) * (b - center) for a, b in zip(one, other, strict=True))
    spread = [sum((rank - center) ** 2 for rank in ranks) for ranks in (one, other)]
    return covariance / (spread[0] * spread[1]) ** 0.5 if min(spread) else 1.0


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [mean((order.index(value) + 1, len(order) - order[::-1].index(value))) for value in values]


def refused(rows: Sequence[Row]) -> tuple[int, int]:
    """Of the runs that did not fit, how many were predicted not to, and how many there are."""
    failed = [row.estimate() for row in rows if not row.step_s]
    return sum(found.memory.value > room(found.cluster) for found in failed), len(failed)
