"""Topology: on which nodes and racks the GPUs of a job stand, and what it costs the job when they stand apart.

A cluster has links of three kinds: inside a node, between the nodes of a rack, and between racks. The ring of an
all-reduce is as slow as its slowest link, so a job pays for the farthest two of its ranks. `Racks.step_s` is its step:
compute, then the all-reduce of its gradients by the prices of `network`, without overlap. Two jobs that share a link do
not slow each other down here; on a real cluster they do.

Two rules place a job. `packed` takes one node if it can, else the fewest nodes of one rack, else the racks with most
room; of equal places the fullest, so that empty nodes stay whole. `scattered` draws free GPUs wherever they are.
`replay` lays the runs of a schedule on nodes, one after another as they start and end. The times stay those of the
schedule: a slow place does not make a job longer in it.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from parallel_lab.network import Link, price
from parallel_lab.systems.scheduling.cluster import Run, Schedule

Place = Mapping[int, int]  # how many GPUs on which node
Rule = Callable[["Racks", Mapping[int, int], int], Place]


@dataclass(frozen=True)
class Racks:
    """Nodes in racks: node i stands in rack i // nodes_per_rack.

    Attributes:
        nodes: how many in all.
        gpus: of each node.
        nodes_per_rack: how many nodes share a rack.
        inside: the link of a GPU to others of its node.
        between: the link of a GPU to other nodes of its rack.
        across: the link of a GPU to other racks.
    """

    nodes: int
    gpus: int
    nodes_per_rack: int
    inside: Link
    between: Link
    across: Link

    def racks(self, place: Place) -> set[int]:
        """The racks on which a job stands."""
        return {node // self.nodes_per_rack for node in place}

    def link(self, place: Place) -> Link:
        """The slowest link of a job's ring."""
        if len(place) == 1:
            return self.inside
        return self.between if len(self.racks(place)) == 1 else self.across

    def step_s(self, place: Place, compute_s: float, gradient_bytes: float) -> float:
        """A step of a job: its compute, then a ring all-reduce over all its GPUs."""
        ranks = sum(place.values())
        return compute_s + (price("all_reduce", ranks, gradient_bytes).seconds(self.link(place)) if ranks > 1 else 0.0)


def packed(racks: Racks, free: Mapping[int, int], gpus: int) -> Place:
    """One node, or the fewest nodes of one rack, or the racks with most room; of equals the fullest place."""
    rooms = Counter()
    for node, count in free.items():
        rooms[node // racks.nodes_per_rack] += count
    one_node = [node for node, count in free.items() if count >= gpus]
    if one_node:
        return {min(one_node, key=lambda node: (free[node], rooms[node // racks.nodes_per_rack])): gpus}
    one_rack = [rack for rack, count in rooms.items() if count >= gpus]
    if one_rack:
        choices = [_fullest(_of_rack(racks, free, rack), gpus) for rack in one_rack]
        return min(choices, key=lambda place: (len(place), sum(free[node] for node in place)))
    by_rack = sorted(rooms, key=lambda rack: -rooms[rack])
    order = {node: free[node] for rack in by_rack for node in _fullest(_of_rack(racks, free, rack), rooms[rack])}
    return _taken(order, gpus)


def _of_rack(racks: Racks, free: Mapping[int, int], rack: int) -> dict[int, int]:
    return {node: count for node, count in free.items() if node // racks.nodes_per_rack == rack}


def _fullest(free: Mapping[int, int], gpus: int) -> Place:
    """The nodes with most free GPUs first, so that few are needed; the last one is the tightest that is enough."""
    place, left = {}, dict(free)
    while gpus:
        enough = [node for node in left if left[node] >= gpus]
        node = min(enough, key=left.__getitem__) if enough else max(left, key=left.__getitem__)
        place[node] = min(gpus, left.pop(node))
        gpus -= place[node]
    return place


def _taken(free: Mapping[int, int], gpus: int) -> Place:
    """GPUs of the nodes in the order given."""
    place = {}
    for node, count in free.items():
        if gpus and count:
            place[node] = min(gpus, count)
            gpus -= place[node]
    return place


def scattered(seed: int) -> Rule:
    """A rule that draws from all free GPUs."""
    dice = random.Random(seed)

    def rule(racks: Racks, free: Mapping[int, int], gpus: int) -> Place:
        spots = [node for node, count in free.items() for _ in range(count)]
        return Counter(dice.sample(spots, gpus))

    return rule


class Placed(NamedTuple):
    """A run of a schedule and the nodes on which it stood."""

    run: Run
    place: Place


def replay(schedule: Schedule, racks: Racks, rule: Rule) -> Iterator[Placed]:
    """Lays each run of a schedule on nodes when it starts, and frees them when it ends.

    Raises:
        ValueError: the schedule has more GPUs than the nodes.
    """
    if schedule.gpus > racks.nodes * racks.gpus:
        raise ValueError(f"a schedule on {schedule.gpus} GPUs does not fit {racks.nodes} nodes of {racks.gpus}")
    free, places = dict.fromkeys(range(racks.nodes), racks.gpus), {}
    moments = [(run.end_s, 0, number) for number, run in enumerate(schedule.runs)]  # ends before starts
    moments += [(run.start_s, 1, number) for number, run in enumerate(schedule.runs)]
    for _, starts, number in sorted(moments):
        run = schedule.runs[number]
        place = places[number] = rule(racks, free, run.gpus) if starts else places[number]
        for node, count in place.items():
            free[node] += -count if starts else count
        if starts:
            yield Placed(run, place)


def worth_waiting_s(left_s: float, slowdown: float) -> float:
    """The longest wait for a good place that pays, for a job that would take `left_s` there and is slower here."""
    return left_s * (slowdown - 1)
