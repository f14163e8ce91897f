"""A rank dies and the others go on: in a smaller group, or with a spare, from weights and moments of a live replica."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Kill, RankFailed, launch
from parallel_lab.systems.resilience import Job, NoReplica, Replica, Round, Rounds

pytestmark = pytest.mark.usefixtures("by_value")
STEPS = 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run on four ranks, without any of this."""
    return launch(Job(str(tmp_path_factory.mktemp("whole")), steps=STEPS, every=0), ranks=4)[0]


def ends_as(run, whole):
    """The ranks that came to the end have its weights, bit by bit."""
    done = [result for result in run.results if result and len(result.weights)]
    return done and all(torch.equal(result.weights, whole.weights) for result in done)


def test_a_spare_takes_the_place_and_nothing_changes(tmp_path, whole):
    """Weights are those of the undisturbed run; the newcomer begins with the weights and moments of a run that far."""
    far = launch(Replica(tmp_path / "far", steps=4), ranks=4)
    run = launch(Replica(tmp_path / "run", steps=STEPS), ranks=6, faults=[Kill(2, "all_reduce", 4)], may_fail=[2])
    assert "SIGKILL" in run.failures[2]
    assert ends_as(run, whole)
    assert [each.members for each in run[0].rounds] == [[0, 1, 2, 3], [0, 1, 3, 4]]
    assert run[4].rounds == [Round(1, {0: 4, 1: 4, 3: 4, 4: -1})] and run[4].healed == [(4, 0)]
    assert torch.equal(run[4].joined_with, far[0].state) and torch.equal(run[4].state, run[0].state)
    assert len(far[0].state) > 3 * len(far[0].weights)  # both moments are in it
    assert len(run[5].weights) == 0  # the second spare was not needed
    assert list(run[0].losses.values()) == whole.losses


def test_without_spares_the_group_shrinks(tmp_path, whole):
    faults = [Kill(2, "all_reduce", 2), Kill(0, "all_reduce", 5)]
    run = launch(Replica(tmp_path, steps=STEPS), ranks=4, faults=faults, may_fail=[0, 2])
    assert [each.members for each in run[1].rounds] == [[0, 1, 2, 3], [0, 1, 3], [1, 3]]
    assert torch.equal(run[1].state, run[3].state)
    assert list(run[1].losses.values()) == pytest.approx(whole.losses, abs=1e-5)
    torch.testing.assert_close(run[1].weights, whole.weights, atol=1e-5, rtol=0)


def test_a_member_that_has_lost_a_result_is_healed(tmp_path, whole):
    """At the third step, and at the last one, after which the others have nothing more to compute."""

    def loses(what, step):
        if what == "reduced" and (dist.get_rank(), step) in lost:
            lost.discard((dist.get_rank(), step))
            raise RuntimeError("the result did not come")

    lost = {(1, 2), (3, STEPS - 1)}
    run = launch(Replica(tmp_path, steps=STEPS, hook=loses), ranks=4)
    assert ends_as(run, whole)
    assert [len(each.healed) for each in run.results] == [0, 1, 0, 1]
    assert run[0].rounds[1].steps == {0: 3, 1: 2, 2: 3, 3: 3}


@dataclass
class Late(Replica):
    """Its spares come when the third step after the death is done."""

    def _take_a_seat(self):
        while dist.get_rank() >= self.seats and not Path(f"{self.where}.three").exists():
            time.sleep(0.005)
        return super()._take_a_seat()

    def _tell(self, what, step):
        if what == "begin" and step == 5:
            Path(f"{self.where}.three").touch()
            while dist.get_rank() == 0 and not self.rounds.spares():
                time.sleep(0.005)


def test_a_late_newcomer_is_let_in_between_two_steps(tmp_path, whole):
    called = tmp_path / "called"
    job = Late(tmp_path / "run", seats=3, steps=STEPS, prepare=called.touch)
    run = launch(job, ranks=4, faults=[Kill(1, "all_reduce", 2)], may_fail=[1])
    assert [each.members for each in run[0].rounds] == [[0, 1, 2], [0, 2], [0, 2, 3]]
    assert run[3].healed == [(6, 0)] and called.exists()
    assert torch.equal(run[3].state, run[0].state)
    torch.testing.assert_close(run[0].weights, whole.weights, atol=1e-5, rtol=0)


def test_when_all_replicas_are_dead_it_takes_a_checkpoint(tmp_path):
    with pytest.raises(RankFailed, match="every rank that had weights is dead: restart from a checkpoint"):
        launch(Replica(tmp_path, seats=1), ranks=2, faults=[Kill(0, "all_reduce", 1)], may_fail=[0])


def test_a_fault_of_the_program_is_raised(tmp_path):
    def wrong(what, step):
        if what == "begin":
            raise RuntimeError("shapes do not match")

    with pytest.raises(RankFailed, match="shapes do not match"):
        launch(Replica(tmp_path, seats=1, hook=wrong), ranks=1)


def test_ranks_agree_without_torch(tmp_path):
    """Rank 2 has died, two spares want its place: both survivors hear of one and the same group."""
    ranks = [Rounds(tmp_path, rank, seats=3) for rank in range(5)]
    ranks[0].begin()
    agreed = {}

    def take_part(rank):
        agreed[rank] = ranks[rank].wait() if rank > 2 else ranks[rank].join(1, 7 - rank, [0, 1, 2])

    ranks[2].die()
    waiting = [threading.Thread(target=take_part, args=[rank]) for rank in (3, 4)]
    for thread in waiting:
        thread.start()
    while len(ranks[0].spares()) < 2:
        time.sleep(0.001)
    joining = [threading.Thread(target=take_part, args=[rank]) for rank in (0, 1)]
    for thread in joining:
        thread.start()
    for thread in joining:
        thread.join()
    ranks[0].leave()
    for thread in waiting:
        thread.join()
    assert agreed[0] == agreed[1] == agreed[3] == Round(1, {0: 7, 1: 6, 3: -1}) and agreed[4] is None
    assert agreed[0].sources() == {1: 0, 3: 0} and not ranks[1].alive(2) and not ranks[1].alive(9)
    for each in ranks:
        each.die()


def test_a_spare_notices_that_nobody_is_left(tmp_path):
    first, spare = (Rounds(tmp_path, rank, seats=1) for rank in range(2))
    first.join(0, 3, [0])
    first.die()
    with pytest.raises(NoReplica):
        spare.wait()
    spare.die()
