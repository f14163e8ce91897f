"""The fit of the constants to published rows, and what rows come to that it has not seen.

The residual of a row is log(predicted / measured), so that twice too long and half too long weigh the same. A
stratum weighs as the root of its rows, so that neither one of 360 rows nor one of 8 decides alone. Beyond 3 % a
residual counts by its size and no longer by its square (soft L1), so that a row that no term explains pulls little.
Constants are fitted as logarithms, between `BOUNDS`.

Rows of one model, or of one layout, are near copies of each other: whoever leaves out single rows tests nothing. Here
whole models, whole layouts and whole tables are left out. For each the constants are fitted again to all other rows,
by the Jacobian of the whole fit (the residuals are close to linear in the logarithms), and the rows left out are then
predicted in full with these constants. A test holds one of them against a fit from the beginning.

That is not a blind test. Which terms the planner has, and in which form, was chosen with all of these rows in view, so
rows that nobody had seen are to be expected worse.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import mean, median
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from parallel_lab.planner.constants import BOUNDS, Constants
from parallel_lab.planner.rows import Row

SOFT = 0.03  # residuals beyond it count by their size
FOLDS = 5
_LEAST = 1e-9  # in place of a bound of 0, of which there is no logarithm


class Fit(NamedTuple):
    """Constants, and how residuals depend on them."""

    constants: Constants
    rows: Sequence[Row]
    residuals: np.ndarray
    jacobian: np.ndarray  # of the residuals by the logarithms of the constants


class Errors(NamedTuple):
    """Relative errors of some rows: how many, their mean and median size, the largest, and their mean with sign."""

    rows: int
    mean: float
    median: float
    largest: float
    bias: float

    @classmethod
    def of(cls, errors: Iterable[float]) -> "Errors":
        """Of signed relative errors."""
        found = list(errors)
        sizes = [abs(error) for error in found]
        return cls(len(found), mean(sizes), median(sizes), max(sizes), mean(found))


def measured(rows: Iterable[Row]) -> list[Row]:
    """Rows with a time, and without a note that says why no term explains them."""
    return [row for row in rows if row.step_s and not row.note]


def fit(rows: Iterable[Row], start: Constants | None = None) -> Fit:
    """The constants that fit `rows` best."""
    found = measured(rows)
    residuals = _residuals_of(found)
    solved = least_squares(
        _weighted(residuals, weights(found)), _logs(start or Constants()), bounds=_bounds(), loss="soft_l1",
        f_scale=SOFT, max_nfev=15, x_scale=0.1, diff_step=1e-3, xtol=1e-4, ftol=1e-5,
    )  # fmt: skip
    own = residuals(solved.x)
    steps = [residuals(solved.x + shift) for shift in 1e-3 * np.eye(len(solved.x))]
    return Fit(_constants(solved.x), found, own, (np.array(steps) - own).T / 1e-3)


def weights(rows: Sequence[Row]) -> np.ndarray:
    """Of each row: 1 / root of how many its stratum has, times what makes the mean 1."""
    count = Counter(row.stratum for row in rows)
    found = np.array([1 / math.sqrt(count[row.stratum]) for row in rows])
    return found / found.mean()


def refit(whole: Fit, kept: Sequence[int]) -> Constants:
    """The constants fitted to the rows `kept`, by their numbers, with the Jacobian of the whole fit."""
    own, jacobian = whole.residuals[kept], whole.jacobian[kept]
    center = _logs(whole.constants)
    scale = weights([whole.rows[k] for k in kept])
    solved = least_squares(
        _weighted(lambda logs: own + jacobian @ (logs - center), scale), center, bounds=_bounds(), loss="soft_l1",
        f_scale=SOFT, x_scale=0.1,
    )  # fmt: skip
    return _constants(solved.x)


def left_out(whole: Fit, key: Callable[[Row], Hashable], folds: int | None = FOLDS) -> list[float]:
    """The error of each row, predicted with constants that saw no row of its fold; `key` says what stays together.

    Args:
        whole: the fit to all rows.
        key: of a row.
        folds: into how many the keys are dealt out; None for one each.
    """
    keys = sorted({key(row) for row in whole.rows}, key=repr)
    fold_of = {one: k % (folds or len(keys)) for k, one in enumerate(keys)}
    members = defaultdict(list)
    for k, row in enumerate(whole.rows):
        members[fold_of[key(row)]].append(k)
    errors = [math.nan] * len(whole.rows)
    for mine in members.values():
        kept = sorted(set(range(len(whole.rows))) - set(mine))
        found = refit(whole, kept)
        for k in mine:
            errors[k] = whole.rows[k].error(found)
    return errors


def by_stratum(rows: Sequence[Row], errors: Sequence[float]) -> dict[str, Errors]:
    """The errors of each stratum."""
    strata: dict[str, list[float]] = defaultdict(list)
    for row, error in zip(rows, errors, strict=True):
        strata[row.stratum].append(error)
    return {stratum: Errors.of(found) for stratum, found in strata.items()}


def _weighted(residuals: Callable[[np.ndarray], np.ndarray], weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    scale = np.sqrt(weight)
    return lambda logs: scale * residuals(logs)


def _residuals_of(rows: Sequence[Row]) -> Callable[[np.ndarray], np.ndarray]:
    def residuals(logs: np.ndarray) -> np.ndarray:
        constants = _constants(logs)
        return np.array([math.log1p(row.error(constants)) for row in rows])

    return residuals


def _logs(constants: Constants) -> np.ndarray:
    low, high = _bounds()
    return np.clip([math.log(value) for value in constants.values().values()], low + 1e-6, high - 1e-6)


def _constants(logs: np.ndarray) -> Constants:
    return Constants(*(float(value) for value in np.exp(logs)))


def _bounds() -> tuple[np.ndarray, np.ndarray]:
    each = BOUNDS.values()
    return np.log([max(one.low, _LEAST) for one in each]), np.log([one.high for one in each])
