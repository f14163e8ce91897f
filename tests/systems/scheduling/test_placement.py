"""Fragments and topology: by hand, against a plain search, and on the machines and tasks of a real cluster."""

import random
from collections import Counter

import pytest

from parallel_lab.network import Link, price
from parallel_lab.systems.scheduling import SKIPPING, Job, openb, placement, simulate, topology
from parallel_lab.systems.scheduling.placement import Anywhere, Ask, Gradient, Pool, best_fit, filled, mix, worst_fit

FAST, MIDDLE, SLOW = Link(5e-6, 300e9), Link(10e-6, 50e9), Link(15e-6, 12.5e9)
RACKS = topology.Racks(nodes=8, gpus=8, nodes_per_rack=4, inside=FAST, between=MIDDLE, across=SLOW)


def few(seed, part=8):
    """A part of the cluster, and tasks that ask for more than it has."""
    machines = [machine.gpus for machine in openb.summary_machines()][::part]
    asks = [Ask(pod.gpus, pod.thousandths) for turn in (0, 100) for pod in openb.summary_pods(seed=seed + turn)]
    random.Random(seed).shuffle(asks)
    return machines, asks[: int(1.3 * len(asks) / 2 / part)]


def test_best_fit_keeps_a_machine_whole_and_worst_fit_does_not():
    """Two machines of 2; four tasks of a half come, then one of 2."""
    asks = [Ask(1, 500)] * 4 + [Ask(2)]
    pools = {rule.__name__: Pool([2, 2], rule) for rule in (best_fit, worst_fit)}
    placed = {name: [pool.place(ask) for ask in asks] for name, pool in pools.items()}
    assert placed == {"best_fit": [True] * 5, "worst_fit": [True] * 4 + [False]}


def test_what_is_unusable():
    state = (0, 300, 1000, 1000)
    assert placement.wasted(state, Ask(2)) == 300, "of two whole ones the part is of no use"
    assert placement.wasted(state, Ask(4)) == 2300, "where it finds no room, all is"
    assert placement.wasted(state, Ask(1, 200)) == 0 == placement.wasted(state, Ask(1, 300))
    assert placement.wasted(state, Ask(1, 400)) == 300
    expected = Gradient({Ask(2): 0.5, Ask(4): 0.25, Ask(1, 200): 0.25}).unusable(state)
    assert expected == 0.5 * 300 + 0.25 * 2300


@pytest.mark.parametrize("seed", range(4))
def test_machines_counted_together_are_machines_one_by_one(seed):
    """The gradient's place is the best of all that a plain search finds, and nothing is lost."""
    machines, asks = few(seed, part=60)
    gradient, plain = Gradient(mix(asks)), [[1000] * count for count in machines]
    pool = Pool(machines, gradient)
    for ask in asks:
        options = []
        for number, free in enumerate(plain):
            spots = [k for k, rest in enumerate(free) if rest >= ask.thousandths]
            if ask.thousandths == 1000:
                spots = [spots[: ask.gpus]] if len(spots) >= ask.gpus else []
            for spot in spots:
                after = list(free)
                for k in spot if isinstance(spot, list) else [spot]:
                    after[k] -= ask.thousandths
                grows = gradient.unusable(tuple(sorted(after))) - gradient.unusable(tuple(sorted(free)))
                taken = 1000 if isinstance(spot, list) else free[spot]
                options.append((grows + 1e-9 * (1e6 * taken + sum(free)), number, after))
        assert pool.place(ask) is bool(options)
        if options:
            _, number, after = min(options)
            plain[number] = after
        assert Counter(pool.machines) == Counter(tuple(sorted(free)) for free in plain)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rules_on_a_real_mix(seed):
    """At the moment when as much was asked for as there is: worst fit holds least, then random, then the tight ones."""
    machines, asks = few(seed)
    rules = {"worst": worst_fit, "random": Anywhere(seed), "best": best_fit, "gradient": Gradient(mix(asks))}
    held = {}
    for name, rule in rules.items():
        points = filled(machines, asks, rule)
        held[name] = next(point.held for point in points if point.asked >= 1)
        assert all(point.held + point.unusable <= 1 + 1e-9 for point in points)
        assert points[-1].asked == pytest.approx(sum(ask.total for ask in asks) / 1000 / sum(machines))
    assert held["worst"] < held["random"] < held["best"]
    assert abs(held["gradient"] - held["best"]) < 0.01


def test_the_rules_on_the_original_order(original):
    """Every fourth machine, and every fourth task in the order in which they came."""
    machines = [machine.gpus for machine in openb.machines(original("openb_gpu_nodes_1213.csv.gz"))][::4]
    pods = sorted(openb.pods(original("openb_pods_8152.csv.gz")), key=lambda pod: pod.created_s)[::4]
    asks = [Ask(pod.gpus, pod.thousandths) for pod in pods]
    ends = {rule: filled(machines, asks, rule)[-1] for rule in (best_fit, worst_fit)}
    assert ends[worst_fit].held < ends[best_fit].held < ends[best_fit].asked


def test_every_place_is_as_likely_as_any_other():
    """Of 9 machines one has a GPU in use: the next task of a half goes there in 1 of 18 places, 17 are empty."""
    hits = 0
    for seed in range(600):
        pool = Pool([2] * 9, Anywhere(seed))
        pool.place(Ask(1, 100))
        pool.place(Ask(1, 500))
        hits += (400, 1000) in pool.machines
    assert 15 <= hits <= 55  # 600 / 18 = 33, with a deviation of 5.6


def test_a_job_in_one_node_is_faster_than_across_racks():
    places = [{0: 8}, {0: 4, 1: 4}, {0: 4, 4: 4}]
    assert [RACKS.link(place) for place in places] == [FAST, MIDDLE, SLOW]
    for place, link in zip(places, (FAST, MIDDLE, SLOW), strict=True):
        assert RACKS.step_s(place, 0.1, 2e9) == 0.1 + price("all_reduce", 8, 2e9).seconds(link)
    assert RACKS.step_s({3: 1}, 0.1, 2e9) == 0.1


def test_packed_takes_the_tightest_node_then_the_fewest():
    free = {0: 8, 1: 5, 2: 3, 3: 0, 4: 8, 5: 8, 6: 2, 7: 0}
    assert topology.packed(RACKS, free, 3) == {2: 3}
    assert topology.packed(RACKS, free, 6) == {0: 6}, "rack 0 is the fuller one"
    assert topology.packed(RACKS, free, 16) == {4: 8, 5: 8}, "three nodes of rack 0 would do it too"
    assert topology.packed(RACKS, free, 12) == {0: 8, 1: 4}, "both racks need two nodes, and 0 and 1 are fuller"
    assert topology.packed(RACKS, free, 30) == {4: 8, 5: 8, 6: 2, 0: 8, 1: 4}


@pytest.mark.parametrize("seed", range(4))
def test_a_schedule_laid_on_nodes(mixed, seed):
    """Both rules give each run its GPUs, no node more than it has; packed breaks no job of a node's size or less up."""
    schedule = simulate(mixed(seed, largest=8), 64, SKIPPING)
    for rule in (topology.packed, topology.scattered(seed)):
        placed = list(topology.replay(schedule, RACKS, rule))
        assert Counter(one.run for one in placed) == Counter(schedule.runs)
        assert all(sum(one.place.values()) == one.run.gpus for one in placed)
        for moment in placed:
            at_s = moment.run.start_s
            held = Counter()
            for other in placed:
                if other.run.start_s <= at_s < other.run.end_s:
                    held.update(other.place)
            assert max(held.values()) <= 8
        if rule is topology.packed:
            tight = sum(len(one.place) for one in placed)
    assert tight < sum(len(one.place) for one in placed)


def test_free_gpus_are_no_free_node():
    """Eight jobs of 7 leave 8 GPUs free, and no rule can put 8 of them on one node."""
    jobs = [Job(str(number), 0, 7, 10) for number in range(8)] + [Job("eight", 1, 8, 5)]
    replayed = topology.replay(simulate(jobs, 64, SKIPPING), RACKS, topology.packed)
    placed = {one.run.job.name: one.place for one in replayed}
    assert len(placed["eight"]) == 8
    slower = RACKS.step_s(placed["eight"], 0.1, 2e9) / RACKS.step_s({0: 8}, 0.1, 2e9)
    wait = topology.worth_waiting_s(3600, slower)
    assert wait + 3600 == pytest.approx(3600 * slower), "waiting so long for a node ends as late as starting here"


def test_a_schedule_that_is_too_large_for_the_nodes():
    with pytest.raises(ValueError, match="100 GPUs does not fit 8 nodes of 8"):
        list(topology.replay(simulate([Job("a", 0, 1, 1)], 100, SKIPPING), RACKS, topology.packed))
