"""What a rank does has one name, on every axis: a recorded step is a plan, and its bytes are known by axis."""

import itertools
import random

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Link, collectives, launch
from parallel_lab.plan import check_plan
from parallel_lab.runtime import make_mesh, seed_for, tags
from parallel_lab.trace import tag

SIZE = 48


def on_every_axis():
    mesh, x = make_mesh(dp=2, tp=2), torch.ones(SIZE)
    for group in (mesh.get_group("tp"), mesh.get_group("dp"), None):
        for _ in range(2):
            dist.all_reduce(x, group=group)
            collectives.all_reduce(x, group)
    spanning, alone = make_mesh(dp=4), make_mesh(dp=4, tp=1)
    for group in (spanning.get_group("dp"), alone.get_group("dp"), alone.get_group("tp")):
        dist.all_reduce(x, group=group)
    assert make_mesh(dp=2, tp=2) is mesh
    ours = mesh["tp"].get_group()
    neighbor = dist.get_rank() ^ 1
    with tag(phase="forward"):
        for _ in range(2):
            wait([dist.isend(x, neighbor, ours), dist.irecv(x.clone(), neighbor, ours)])
    with tag(part=3, mb=1, phase="backward"):
        collectives.all_reduce(x, ours)
        dist.all_reduce(x, group=ours)


def wait(works):
    for work in works:
        work.wait()


def test_a_run_on_a_mesh_is_a_plan_and_its_bytes_are_known_by_axis():
    trace = launch(on_every_axis, ranks=4, link=Link()).trace
    check_plan(trace.plan())
    reduced = {n: 2 * (n - 1) * SIZE * 4 // n for n in (1, 2, 4)}
    for rank in range(4):
        assert trace.bytes_sent(rank, axis="tp") == 6 * reduced[2] + 2 * SIZE * 4 + reduced[1]
        assert trace.bytes_sent(rank, axis="dp") == 4 * reduced[2] + 2 * reduced[4]
        assert trace.bytes_sent(rank, axis="") == 4 * reduced[4]
        assert trace.bytes_sent(rank) == sum(trace.bytes_sent(rank, axis=axis) for axis in ("tp", "dp", ""))
        assert trace.messages(rank, axis="dp") == 4 * 2 + 2 * 6
        last = trace.of(rank)[-1].op
        assert (last.part, last.mb, last.phase, last.axis) == (3, 1, "backward", "tp")
        assert {s.phase for s in trace.of(rank) if s.mb == 1} == {"backward", "backward/3"}
        assert [s.part for s in trace.of(rank) if s.phase == "forward"] == [0, 0, 1, 1]
    untagged = [str(s.op) for s in trace.of(0) if s.kind == "all_reduce" and not s.phase]
    assert untagged[:6] == [f"{k}all_reduce0{axis}" for axis in ("@tp", "@dp", "") for k in range(2)]


def test_a_collective_alone_is_the_plan_of_its_algorithm():
    trace = launch(lambda: collectives.all_reduce(torch.ones(SIZE)), ranks=3).trace
    assert trace.plan().rows == collectives.ring.all_reduce_plan(3).rows


def test_a_group_of_one_s_own_has_the_axis_that_it_is_described_by():
    def fn():
        named, nameless = dist.new_group([0, 1], group_desc="ep"), dist.new_group([0, 1])
        dist.barrier(named)
        dist.barrier(nameless)
        return nameless.label

    run = launch(fn, ranks=2)
    assert [s.axis for s in run.trace.of(0)] == ["ep", run[0]]
    check_plan(run.trace.plan())


OURS = {
    "ring": lambda x: collectives.all_reduce(x),
    "tree": lambda x: collectives.all_reduce(x, algorithm="tree"),
    "star": lambda x: collectives.all_reduce(x, algorithm="star"),
    "full_mesh": lambda x: collectives.all_reduce(x, algorithm="full_mesh"),
    "recursive_doubling": lambda x: collectives.all_reduce(x, algorithm="recursive_doubling"),
    "halving_doubling": lambda x: collectives.all_reduce(x, algorithm="halving_doubling"),
    "hierarchical": lambda x: collectives.all_reduce(x, algorithm="hierarchical", ranks_per_node=1),
    "broadcast": lambda x: collectives.broadcast(x),
    "reduce": lambda x: collectives.reduce(x),
    "all_to_all": lambda x: collectives.all_to_all(x),
    "all_gather": lambda x: collectives.all_gather(x),
    "reduce_scatter": lambda x: collectives.reduce_scatter(x),
}


def beside_collectives(numbers):
    """A message with each tag is under way while a collective runs; the receiver takes it afterwards, last first."""
    rank = dist.get_rank()
    for ours in OURS.values():
        given = [torch.full((5,), float(number)) for number in numbers]
        taken = [torch.empty(5) for _ in numbers]
        if rank == 0:
            works = [dist.isend(x, 1, tag=number) for x, number in zip(given, numbers, strict=True)]
            ours(torch.ones(SIZE))
        else:
            ours(torch.ones(SIZE))
            works = [dist.irecv(x, 0, tag=number) for x, number in zip(taken[::-1], numbers[::-1], strict=True)]
        wait(works)
        assert rank == 0 or all(map(torch.equal, given, taken))


@pytest.mark.parametrize("link", [None, Link(1e-6, 1e12)], ids=["no link", "link"])
def test_no_tag_of_a_user_meets_one_of_ours(link):
    numbers = random.Random(0)
    large = [numbers.randrange(65, tags.FIRST_OF_LAB) for _ in range(16)]
    edges = [1 << 20, (1 << 20) + 1, 1 << 22, 1 << 30, tags.FIRST_OF_LAB - 1]
    launch(beside_collectives, [*range(65), *large, *edges], ranks=2, link=link)


def test_a_receive_from_any_source_waits_for_the_link_and_is_known_by_its_sender():
    link = Link(latency_s=0.05)

    def fn():
        x = torch.empty(2)
        if dist.get_rank():
            return dist.send(torch.full((2,), float(dist.get_rank())), 0, tag=3)
        works = [dist.irecv(x, tag=3), dist.irecv(torch.empty(2), tag=3)]
        wait(works)
        return x.tolist()

    run = launch(fn, ranks=3, link=link)
    check_plan(run.trace.plan())
    assert run[0] in ([1.0, 1.0], [2.0, 2.0])
    ends = [s.end_s for s in run.trace.of(0)]
    sent_s = min(s.start_s for rank in (1, 2) for s in run.trace.of(rank))
    assert min(ends) >= sent_s + link.latency_s - 1e-6 and abs(ends[1] - ends[0]) >= link.latency_s - 1e-6


ROW_BYTES = 3 * 4


def rows_to(source, target, n, empty):
    """How many rows go from one rank to another: other than the way back, and none on some ways."""
    return 0 if empty and (source + target) % 2 else 1 + 2 * source + target * n


def uneven(empty, as_list):
    n, rank = dist.get_world_size(), dist.get_rank()
    given = [torch.full((rows_to(rank, peer, n, empty), 3), float(rank)) for peer in range(n)]
    taken = [torch.empty(rows_to(peer, rank, n, empty), 3) for peer in range(n)]
    dist.barrier()
    if as_list:
        dist.all_to_all(taken, given)
    else:
        whole = torch.empty(sum(map(len, taken)), 3)
        dist.all_to_all_single(whole, torch.cat(given), [len(x) for x in taken], [len(x) for x in given])
        taken = whole.split([len(x) for x in taken])
    return all(torch.equal(x, torch.full_like(x, float(peer))) for peer, x in enumerate(taken))


WAYS = [*itertools.product((False, True), (False, True))]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_an_uneven_all_to_all_is_charged_what_leaves_each_rank_and_takes_as_long_as_the_slowest(n):
    link = Link(latency_s=1e-3, bytes_per_s=1e5)
    run = launch(lambda: [uneven(*way) for way in WAYS], ranks=n, link=link)
    assert run.results == [[True] * len(WAYS)] * n
    for place, (empty, _) in enumerate(WAYS):
        sizes = [[ROW_BYTES * rows_to(a, b, n, empty) * (a != b) for b in range(n)] for a in range(n)]
        ports = [[size for size in row if size] for row in (*sizes, *zip(*sizes, strict=True))]
        barriers, spans = zip(*(run.trace.of(rank)[2 * place : 2 * place + 2] for rank in range(n)), strict=True)
        for rank, s in enumerate(spans):
            assert (s.sent_bytes, s.sent_messages) == (sum(ports[rank]), len(ports[rank]))
        joined_s = max([s.start_s for s in spans] + [s.end_s for s in barriers])
        slowest_s = max(sum(map(link.seconds, port)) for port in ports)
        for s in spans:
            assert s.end_s == pytest.approx(joined_s + slowest_s, abs=1e-6)


def shift():
    n, rank = dist.get_world_size(), dist.get_rank()
    x, splits = torch.full((4, 3), float(rank)), lambda peer: [4 * (i == peer % n) for i in range(n)]
    taken = torch.empty_like(x)
    dist.all_to_all_single(taken, x, splits(rank - 1), splits(rank + 1))
    return taken[0, 0].item() == (rank - 1) % n


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_shift_is_one_message_to_one_peer(n):
    run = launch(shift, ranks=n)
    assert run.results == [True] * n
    assert [(s.sent_bytes, s.sent_messages) for s in run.trace.spans] == [(4 * ROW_BYTES, 1) if n > 1 else (0, 0)] * n


def seeds(sizes):
    mesh = make_mesh(**sizes)
    found = {}
    for count in range(len(sizes) + 1):
        for axes in itertools.combinations(sizes, count):
            found[axes] = seed_for(mesh, axes), seed_for(mesh, axes[::-1]), seed_for(mesh, axes, seed=1)
    for wrong in (["ep"], "dp"):
        with pytest.raises(ValueError, match=r"expected a list of some of the mesh's axes, "):
            seed_for(mesh, wrong)
    drawn = torch.rand(4, generator=torch.Generator().manual_seed(found["dp",][0])).tolist()
    return mesh.get_coordinate(), found, drawn


@pytest.mark.parametrize("sizes", [{"dp": 2, "tp": 2}, {"dp": 1}, {"dp": 2}, {"tp": 1, "dp": 3}, {"dp": 4}], ids=str)
def test_seeds_differ_along_the_axes_that_are_named_and_along_no_other(sizes):
    results = launch(seeds, sizes, ranks=len(torch.empty(tuple(sizes.values())).view(-1))).results
    names = list(sizes)
    for axes in results[0][1]:
        places = {tuple(where[names.index(axis)] for axis in axes): found[axes] for where, found, _ in results}
        for where, found, drawn in results:
            place = tuple(where[names.index(axis)] for axis in axes)
            assert found[axes] == places[place]
            assert found[axes][0] == found[axes][1] != found[axes][2]
            if axes == ("dp",):
                assert all((drawn == other) == (where[names.index("dp")] == at[names.index("dp")])
                           for at, _, other in results)  # fmt: skip
        assert len({first for first, *_ in places.values()}) == len(places)
