"""Fair shares of a cluster: max-min of one resource, dominant shares of several, and a policy that keeps to shares.

*Max-min* raises everyone's share together until he has what he asks for; what he leaves goes to the others. So nobody
can get more without somebody who has less getting still less. With weights it is share/weight that is raised.

*Dominant resource fairness* (DRF, Ghodsi et al., NSDI 2011) does this for several resources. A user's tasks each need a
bundle, such as 1 GPU, 8 cores, 64 GiB. Of one resource he takes the largest part of what the cluster has: his dominant
resource, and that part is his dominant share. DRF raises all dominant shares together. A user stops where a resource
that he needs is used up. With tasks that can be cut at will, it has four properties, which the functions below check
for any rule:

- sharing incentive: nobody would run more with an equal part of each resource (`better_alone`);
- no envy: nobody would run more with another one's bundle (`envious`);
- Pareto efficiency: nobody can run more of what is left (`can_grow`);
- strategy-proofness: who claims another need than his own does not run more (`gain_by_lying`).

Equal sums of parts (`assets`) lack the first, and shares in proportion to claims (`proportional`) the last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from parallel_lab.systems.scheduling.cluster import Progress
from parallel_lab.systems.scheduling.priorities import needed
from parallel_lab.systems.scheduling.simulator import Decision

Bundle = Mapping[str, float]  # of each resource so much
Needs = Mapping[str, Bundle]  # for each user what one task needs
Rule = Callable[[Needs, Bundle], dict[str, float]]  # the tasks of each user
EPSILON = 1e-9


def max_min(claims: Bundle, capacity: float, weights: Bundle | None = None) -> dict[str, float]:
    """The max-min share of each user of one resource.

    Args:
        claims: the most that each user can use.
        capacity: of the resource.
        weights: of the users; 1 for whom none is given.
    """
    weight = {user: (weights or {}).get(user, 1.0) for user in claims}
    shares, left, open_weight = {}, capacity, sum(weight.values())
    for user in sorted(claims, key=lambda user: claims[user] / weight[user]):  # who is satisfied first
        shares[user] = min(claims[user], left * weight[user] / open_weight)
        left -= shares[user]
        open_weight -= weight[user]
    return {user: shares[user] for user in claims}


def proportional(claims: Bundle, capacity: float) -> dict[str, float]:
    """Shares in proportion to claims, where they do not all fit: who claims more gets more."""
    total = sum(claims.values())
    return {user: claim * min(1.0, capacity / total) for user, claim in claims.items()}


def parts(need: Bundle, capacity: Bundle) -> dict[str, float]:
    """The part of each resource that one task takes."""
    return {resource: amount / capacity[resource] for resource, amount in need.items() if amount}


def drf(needs: Needs, capacity: Bundle, weights: Bundle | None = None) -> dict[str, float]:
    """The tasks of each user, fractions allowed, when all dominant shares over weights rise together."""
    weight = {user: (weights or {}).get(user, 1.0) for user in needs}
    speeds = {user: weight[user] / max(parts(need, capacity).values()) for user, need in needs.items()}
    return _filled(needs, capacity, speeds)


def assets(needs: Needs, capacity: Bundle) -> dict[str, float]:
    """The tasks of each user when the sums of the parts that they hold rise together (asset fairness)."""
    return _filled(needs, capacity, {user: 1 / sum(parts(need, capacity).values()) for user, need in needs.items()})


def _filled(needs: Needs, capacity: Bundle, speeds: Mapping[str, float]) -> dict[str, float]:
    """Raises the tasks of all users at their speeds, each until a resource that he needs is used up."""
    tasks, left, growing = dict.fromkeys(needs, 0.0), dict(capacity), set(needs)
    while growing:
        used = {name: sum(speeds[user] * needs[user].get(name, 0.0) for user in growing) for name in left}
        rise = min(left[name] / used[name] for name in left if used[name])
        for user in growing:
            tasks[user] += speeds[user] * rise
        left = {name: left[name] - used[name] * rise for name in left}
        empty = {name for name in left if left[name] <= EPSILON * capacity[name]}
        growing = {user for user in growing if not any(needs[user].get(name) for name in empty)}
    return tasks


def whole_tasks(needs: Needs, capacity: Bundle) -> dict[str, int]:
    """DRF with whole tasks (the paper's Algorithm 1): the next one is of whoever has the least dominant share."""
    tasks, left, growing = dict.fromkeys(needs, 0), dict(capacity), set(needs)
    while growing:
        user = min(sorted(growing), key=lambda user: tasks[user] * max(parts(needs[user], capacity).values()))
        if all(left[name] >= amount for name, amount in needs[user].items()):
            tasks[user] += 1
            left = {name: left[name] - needs[user].get(name, 0) for name in left}
        else:
            growing.remove(user)
    return tasks


def runs_with(bundle: Bundle, need: Bundle) -> float:
    """How many tasks of this need a bundle is enough for."""
    return min(bundle.get(name, 0.0) / amount for name, amount in need.items() if amount)


def held(tasks: float, need: Bundle) -> dict[str, float]:
    """The bundle of so many tasks."""
    return {name: tasks * amount for name, amount in need.items()}


def better_alone(tasks: Mapping[str, float], needs: Needs, capacity: Bundle) -> list[str]:
    """The users who would run more with an equal part of each resource."""
    own = {name: amount / len(needs) for name, amount in capacity.items()}
    return [user for user in needs if runs_with(own, needs[user]) > tasks[user] + EPSILON]


def envious(tasks: Mapping[str, float], needs: Needs) -> list[tuple[str, str]]:
    """The pairs of whom the first would run more with what the second holds."""
    bundles = {user: held(tasks[user], needs[user]) for user in needs}
    pairs = [(user, other) for user in needs for other in needs]
    return [(user, other) for user, other in pairs if runs_with(bundles[other], needs[user]) > tasks[user] + EPSILON]


def can_grow(tasks: Mapping[str, float], needs: Needs, capacity: Bundle) -> list[str]:
    """The users who could run more of what nobody holds."""
    bundles = [held(tasks[user], needs[user]) for user in needs]
    left = {name: amount - sum(bundle.get(name, 0.0) for bundle in bundles) for name, amount in capacity.items()}
    return [user for user in needs if runs_with(left, needs[user]) > 1e3 * EPSILON]


def gain_by_lying(rule: Rule, needs: Needs, capacity: Bundle, user: str, claim: Bundle) -> float:
    """How many more of his true tasks a user runs if he claims another need."""
    granted = rule({**needs, user: claim}, capacity)[user]
    return runs_with(held(granted, claim), needs[user]) - rule(needs, capacity)[user]


@dataclass(frozen=True)
class FairShares:
    """GPUs to whoever holds the least for his weight: max-min over users, a job at a time.

    A user's jobs go in the order of arrival, and a job that does not fit is skipped. With `preempts`, a job that does
    not fit may stop the youngest jobs of users who hold more, as long as its own user does not come to hold more for
    his weight than they keep. What a user held in the past does not count; Slurm and others let it fade instead.

    Attributes:
        weights: of the users; 1 for whom none is given.
        preempts: takes back what is held above a share.
        name: for tables.
    """

    weights: Bundle = field(default_factory=dict)
    preempts: bool = False
    name: str = "fair shares"

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """Starts job after job, each of the user who holds least; then takes back, where that is allowed."""
        levels = {one.job.user: 0.0 for one in [*running, *waiting]}
        for one in running:
            levels[one.job.user] += self._level(one)
        changes: dict[Progress, int] = {}
        line, holders = list(waiting), list(running)
        while found := self._next(line, holders, levels, free):
            one, stopped = found
            for other in stopped:
                levels[other.job.user] -= self._level(other)
                holders.remove(other)
            levels[one.job.user] += self._level(one)
            line.remove(one)
            free += sum(other.gpus for other in stopped) - one.job.gpus
            changes |= dict.fromkeys(stopped, 0) | {one: one.job.gpus}
        return Decision(changes)

    def _next(
        self, line: Sequence[Progress], holders: Sequence[Progress], levels: Mapping[str, float], free: int
    ) -> tuple[Progress, list[Progress]] | None:
        """Who starts next, and who is stopped for him; None where nobody can start."""
        by_level = sorted(line, key=lambda one: levels[one.job.user])  # stable: by arrival among equals
        for one in by_level:
            if one.job.gpus <= free:
                return one, []
        for one in by_level if self.preempts else ():
            level, room, stopped, now = levels[one.job.user] + self._level(one), free, [], dict(levels)
            for other in sorted(holders, key=lambda other: -other.since_s):
                if room < one.job.gpus and now[other.job.user] - self._level(other) >= level - EPSILON:
                    now[other.job.user] -= self._level(other)
                    room += other.gpus
                    stopped.append(other)
            if room >= one.job.gpus:
                return one, needed(stopped, room - one.job.gpus)
        return None

    def _level(self, one: Progress) -> float:
        return (one.gpus or one.job.gpus) / self.weights.get(one.job.user, 1.0)
