"""The best scheme under memory: branch and bound over families of schemes, and what comes close to it.

    found = search(model("llama3-70b"), cluster("h100-ib", gpus=1024), batch=512)
    print(found.best.scheme, found.best.step_s)

Land and Doig 1960, "An automatic method of solving discrete programming problems"; best first, so that what is looked
at last cannot have been needed. Families (see `space.py`) wait in order of a *bound*, a time that none of their schemes
goes below. The next family is opened while its bound is below the limit: the best step so far, plus `near` of it. Of an
opened family each schedule has a tighter bound, and of that each scheme; then its memory is counted, and last, its step
is priced.

Why the optimum cannot be lost. Let `best` be the fastest scheme that fits. It is left out in four places at most. (1)
Its family is never opened: then bound(family) > (1 + near) step(found) for some `found` that fits, and step(best) is no
less than that bound, so `found` is faster than `best`, against its choice. (2) Its own bound, or its schedule's, is
over the limit: the same. (3) Its step is over the limit: the same again, without a bound. (4) It does not fit, or its
group is dropped since a bound of the memory of all its schemes is over what there is: but it fits. So it is found, and
with (1 + near) in place of 1 the argument holds for every scheme within `near` of it: a tie that is shown is a tie of
the whole space, and where none is shown there is none. It needs bounds that are bounds; `bound.py` says why they are,
and the tests hold them, and the result, against exhaustive search. "Optimum" means that of the model of costs, and
never that of a real cluster.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from parallel_lab.model.budget import Shape
from parallel_lab.plan import collector_paused
from parallel_lab.planner.bound import family_floor_s, group_floor_bytes, group_floor_s, scheme_floor_s
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.constants import Constants
from parallel_lab.planner.constants import constants as fitted
from parallel_lab.planner.estimate import Estimate, estimate
from parallel_lab.planner.memory import room
from parallel_lab.planner.remedies import remedies
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.space import Space
from parallel_lab.planner.words import words
from parallel_lab.trace.units import format_bytes

NEAR = 0.05
TIE = 0.01
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Model:
    """What prices a scheme. The tests put simpler ones in its place.

    Attributes:
        estimate: of (shape, cluster, scheme, batch); it has `scheme`, `step_s`, `memory` and `fits`.
        family_floor_s: of (shape, cluster, family, batch), a time below all steps of the family.
        scheme_floor_s: of an estimate, a time below its step, for less than that costs to compute.
        group_floor_s: of the estimate of a group's plainest, without ZeRO, a time below all steps of the group.
        group_floor_bytes: of (shape, cluster, leanest of a group, batch), bytes below what each of the group needs.
        room: what of an accelerator's memory there is for them.
    """

    estimate: Callable[[Shape, Cluster, Scheme, int], Any]
    family_floor_s: Callable[[Shape, Cluster, Scheme, int], float]
    scheme_floor_s: Callable[[Any], float]
    group_floor_s: Callable[[Any], float]
    group_floor_bytes: Callable[[Shape, Cluster, Scheme, int], float]
    room: Callable[[Cluster], float] = room


def model_of(constants: Constants | None = None) -> Model:
    """The planner's own: `estimate` with these constants, by default the fitted ones."""
    some = constants or fitted()

    def priced(shape: Shape, cluster: Cluster, scheme: Scheme, batch: int) -> Estimate:
        return estimate(shape, cluster, scheme, batch, constants=some, check=False)

    def floor_s(shape: Shape, cluster: Cluster, family: Scheme, batch: int) -> float:
        return family_floor_s(shape, cluster, family, batch, some)

    return Model(priced, floor_s, scheme_floor_s, group_floor_s, group_floor_bytes)


class NothingFits(ValueError):
    """No scheme of the space fits; the message has the least memory that was found, and what to change.

    Attributes:
        least_bytes: that the leanest scheme needs on its fullest rank.
        scheme: that scheme; None where no scheme can train the model at all.
    """

    def __init__(self, message: str, least_bytes: float = inf, scheme: Scheme | None = None) -> None:
        super().__init__(message)
        self.least_bytes, self.scheme = least_bytes, scheme


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        best: the estimate of the fastest scheme that fits.
        near: the estimates of all that fit within `NEAR` of it, fastest first; the best is the first of them.
        families: how many there are.
        opened: how many of them were looked into.
        priced: how many schemes' steps were estimated.
        too_large: how many schemes were dropped since they do not fit.
    """

    best: Estimate
    near: tuple[Estimate, ...]
    families: int = 0
    opened: int = 0
    priced: int = 0
    too_large: int = 0

    @property
    def ties(self) -> list[Estimate]:
        """Those that the model of costs cannot tell from the best: within `TIE` of its step."""
        return [one for one in self.near[1:] if one.step_s <= (1 + TIE) * self.best.step_s]

    def runners_up(self, count: int = 5) -> list[Estimate]:
        """The fastest scheme of each other layout (axes) within `NEAR` of the best, `count` at most."""
        first: dict[tuple, Estimate] = {}
        for one in self.near:
            first.setdefault(axes(one.scheme), one)
        return list(first.values())[1 : count + 1]


def axes(scheme: Scheme) -> tuple[int, int, int, int, int]:
    """The sizes of pp, dp, cp, tp and ep."""
    return scheme.pp, scheme.dp, scheme.cp, scheme.tp, scheme.ep


def search(
    shape: Shape,
    cluster: Cluster,
    batch: int,
    *,
    space: Space | None = None,
    near: float = NEAR,
    progress: Progress | None = None,
    constants: Constants | None = None,
    model: Model | None = None,
) -> Found:
    """The fastest scheme that fits, and all that fit within `near` of it.

    Args:
        shape: of the model; its `seq` is the length of the sequences.
        cluster: with its number of accelerators, all of which are used.
        batch: sequences of a step.
        space: what may be chosen; everything by default.
        near: how much slower than the best a scheme may be and still be of interest, as a share.
        progress: called with (families opened, families, best step so far).
        constants: of the planner's model of costs, where they are not the fitted ones.
        model: what prices a scheme, in place of the planner's own.

    Raises:
        NothingFits: the space has no scheme that fits.
    """
    hunt = _Hunt(shape, cluster, batch, space or Space(), near, model or model_of(constants), progress)
    with collector_paused():  # many small objects, and no cycles among them
        hunt.run()
    if not hunt.fitting:
        raise hunt.nothing()
    order = sorted((one for one in hunt.fitting if one.step_s <= hunt.limit_s), key=_order)
    return Found(order[0], tuple(order), hunt.families, hunt.opened, hunt.priced, hunt.too_large)


@dataclass
class _Hunt:
    """A search that goes on."""

    shape: Shape
    cluster: Cluster
    batch: int
    space: Space
    near: float
    model: Model
    progress: Progress | None
    fitting: list[Any] = field(default_factory=list)
    best_s: float = inf
    least: tuple[float, Scheme | None] = (inf, None)
    families: int = 0
    opened: int = 0
    priced: int = 0
    too_large: int = 0

    def run(self) -> None:
        """Opens families, the lowest bound first, until none is left that matters."""
        waiting = list(self._bounded())
        heapq.heapify(waiting)
        self.families = len(waiting)
        while waiting and waiting[0][0] <= self.limit_s:
            _, _, family = heapq.heappop(waiting)
            self.opened += 1
            for leanest, group in self.space.groups(family, self.shape, self.cluster, self.batch):
                self._look_into(leanest, group)
            if self.progress:
                self.progress(self.opened, self.families, self.best_s)

    def _bounded(self) -> Iterator[tuple[float, int, Scheme]]:
        found = self.space.families(self.shape, self.cluster, self.batch)
        for number, family in enumerate(found):
            floor_s = self.model.family_floor_s(self.shape, self.cluster, family, self.batch)
            yield floor_s, number, family

    def _look_into(self, leanest: Scheme, group: list[Scheme]) -> None:
        """Prices those of a group that could be of interest."""
        plain = replace(leanest, zero=0, shard=None, offload="none")
        if self.best_s < inf and self.model.group_floor_s(self._priced(plain)) > self.limit_s:
            return
        floor_bytes = self.model.group_floor_bytes(self.shape, self.cluster, leanest, self.batch)
        if floor_bytes > self.model.room(self.cluster):
            self.too_large += len(group)
            if floor_bytes < self.least[0]:
                self._note_memory(self._priced(leanest))
            return
        for scheme in group:
            self._look_at(self._priced(scheme))

    def _look_at(self, one: Any) -> None:
        if self.model.scheme_floor_s(one) > self.limit_s:
            return
        self._note_memory(one)
        if not one.fits:
            self.too_large += 1
            return
        self.priced += 1
        if one.step_s <= self.limit_s:
            self.fitting.append(one)
            self.best_s = min(self.best_s, one.step_s)

    def _note_memory(self, one: Any) -> None:
        if one.memory.value < self.least[0]:
            self.least = one.memory.value, one.scheme

    def _priced(self, scheme: Scheme) -> Any:
        return self.model.estimate(self.shape, self.cluster, scheme, self.batch)

    @property
    def limit_s(self) -> float:
        """Over which no step is of interest any more."""
        return (1 + self.near) * self.best_s

    def _fits(self, shape: Shape, cluster: Cluster, scheme: Scheme, batch: int) -> bool:
        return self.model.estimate(shape, cluster, scheme, batch).fits

    def nothing(self) -> NothingFits:
        """Why there is no scheme."""
        least_bytes, scheme = self.least
        if scheme is None:
            return NothingFits(
                f"no layout of {self.cluster.gpus} accelerators divides this model's {self.shape.layers} layers and"
                f" {self.shape.heads} heads, and a batch of {self.batch} sequences, among them: change --batch or"
                " --gpus to a number with more divisors"
            )
        chip = self.cluster.accelerator
        found = list(remedies(self.shape, self.cluster, self.batch, self.space, self._fits))
        change = f"What would fit: {'; or '.join(found)}" if found else "No single change that was tried helps"
        return NothingFits(
            f"no scheme fits: the least memory found is {format_bytes(least_bytes)} on the fullest rank"
            f" ({words(scheme)}), and {chip.name} has {format_bytes(chip.memory_bytes)}. {change}",
            least_bytes,
            scheme,
        )


def _order(one: Any) -> tuple:
    """By time; of equal times that which moves fewer parts first, so that a result is the same at every call."""
    scheme = one.scheme
    return one.step_s, scheme.pp, scheme.tp, scheme.cp, scheme.ep, scheme.zero, str(scheme)
