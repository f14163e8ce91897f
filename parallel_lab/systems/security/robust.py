"""Poisoned gradients, and aggregates that a few liars cannot move at will; what those cannot do.

The mean has no defense: a rank that knows the sum of the others' gradients moves the mean to any target, by sending n
times the target less that sum. Three aggregates of n gradients, f of which may be lies:

- *coordinate-wise median* (Yin et al. 2018): of each coordinate the middle value; f < n / 2;
- *coordinate-wise trimmed mean* (Yin et al. 2018): of each coordinate the mean without the f largest and the f smallest
  values; f < n / 2;
- *Krum* (Blanchard et al. 2017): the one gradient whose n - f - 2 nearest others are nearest to it; n >= 2 f + 3 at
  least. The proof also asks that the honest draw from one distribution, with little noise beside the gradient.

Of each coordinate the first two stay between the smallest and the largest honest value. Krum returns one rank's
gradient whole. Each rule needs the gradients apart, so an all-reduce does not do: every rank gathers all of them. Sent:
(n - 1) S bytes a rank, where an all-reduce sends 2 (n - 1) / n S. Held: n S. (Coordinates could be dealt out to the
ranks for the bytes of an all-reduce, but then the rank that owns one could lie about the result.) Secure aggregation
(`secure_sum`) hides just what the rules need, so the two do not go together as they stand here.

What they cannot do. They take what is unlike the others for a lie. Where ranks have different data, an honest rank is
unlike the others, and what its data say is lost. A lie within the spread of the honest is no outlier: "a little is
enough" (Baruch et al. 2019), and a backdoor can go in that way, through Krum whole. And f is a guess: with more liars
than f nothing holds.

Nor does `aggregate` guard the gather itself: in a ring a liar hands on rows of others, which it may change, and it may
send different rows to different ranks, whose models then drift apart. In earnest rows are signed, and hashes compared.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab import compat
from parallel_lab.runtime.group import member

Rule = Callable[[Tensor, int], Tensor]
"""A function of the rows (n, numbers), one gradient a rank, and of f, the lies to bear, that gives one gradient."""


def mean(rows: Tensor, f: int = 0) -> Tensor:
    """The mean of all rows; it bears no lie, whatever `f`."""
    return rows.mean(0)


def coordinate_median(rows: Tensor, f: int) -> Tensor:
    """Of each coordinate the middle value, or the mean of the two middle ones; NaN counts as the largest.

    Raises:
        ValueError: fewer than 2 f + 1 rows.
    """
    n = _enough(rows, f, 2 * f + 1)
    return rows.sort(0).values[(n - 1) // 2 : n // 2 + 1].mean(0)


def trimmed_mean(rows: Tensor, f: int) -> Tensor:
    """Of each coordinate the mean without its f largest and f smallest values; NaN counts as the largest.

    Raises:
        ValueError: fewer than 2 f + 1 rows.
    """
    n = _enough(rows, f, 2 * f + 1)
    return rows.sort(0).values[f : n - f].mean(0)


def krum_scores(rows: Tensor, f: int) -> Tensor:
    """Of each row the sum of its squared distances to the n - f - 2 nearest others; infinite for a row with NaN.

    Raises:
        ValueError: fewer than 2 f + 3 rows.
    """
    n = _enough(rows, f, 2 * f + 3)
    apart = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    squared = apart.square().nan_to_num(nan=torch.inf)
    squared.fill_diagonal_(torch.inf)  # a row is not its own neighbor
    return squared.sort(1).values[:, : n - f - 2].sum(1)


def krum(rows: Tensor, f: int) -> Tensor:
    """The row with the lowest score; the first of several.

    Raises:
        ValueError: fewer than 2 f + 3 rows.
    """
    return rows[krum_scores(rows, f).argmin()].clone()


def _enough(rows: Tensor, f: int, least: int) -> int:
    if f < 0 or len(rows) < least:
        raise ValueError(f"{len(rows)} gradients, of which {f} may be lies: this rule needs {least} or more")
    return len(rows)


RULES: dict[str, Rule] = {
    "mean": mean, "coordinate median": coordinate_median, "trimmed mean": trimmed_mean, "Krum": krum,
}  # fmt: skip


def most_lies(rule: str, n: int) -> int:
    """The largest f that a rule bears among n gradients.

    Raises:
        ValueError: there is no such rule.
    """
    if rule not in RULES:
        raise ValueError(f"there is no rule {rule!r}: expected one of {', '.join(RULES)}")
    return {"mean": 0, "Krum": max(0, (n - 3) // 2)}.get(rule, (n - 1) // 2)


def aggregate(gradient: Tensor, rule: Rule, f: int, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """Gathers the ranks' flat gradients and applies `rule`. It sends (n - 1) S bytes.

    Every rank gets the same bits where the gather is honest, which nothing here guards (see the head).
    """
    group = member(group)
    rows = gradient.new_empty(group.size() * gradient.numel())
    compat.all_gather_single(rows, gradient.contiguous(), group=group)
    return rule(rows.view(group.size(), -1), f)


# The attacks: each makes the liars' rows from what the honest ones sent ---------------------------------------------


def reversed_sign(honest: Tensor, liars: int, n: int) -> Tensor:
    """Each liar sends -10 times the honest mean."""
    return (-10.0 * honest.mean(0)).expand(liars, -1)


def little(honest: Tensor, liars: int, n: int) -> Tensor:
    """All liars send the honest mean less some deviations of each coordinate, within what honest ranks send too.

    They are as many as Baruch et al. choose: so that enough honest ranks are expected to be further out.
    """
    supporters = n // 2 + 1 - liars  # honest ranks that the liars need on their side for a majority
    away = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((n - liars - supporters) / (n - liars))))
    return (honest.mean(0) - away * honest.std(0)).expand(liars, -1)


def not_numbers(honest: Tensor, liars: int, n: int) -> Tensor:
    """Each liar sends NaN; a crash or an overflow does so without any ill will."""
    return torch.full_like(honest[:1], torch.nan).expand(liars, -1)
