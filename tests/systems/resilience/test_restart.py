"""A world of ranks that dies and is started again, and where its time went."""

import os
import signal
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Drop, Kill, launch
from parallel_lab.systems.resilience import Backoff, GaveUp, Job, goodput, latest_whole, supervise
from parallel_lab.systems.resilience.goodput import Event, account
from parallel_lab.systems.resilience.job import newest

pytestmark = pytest.mark.usefixtures("by_value")
QUICK = Backoff(0.001)


@dataclass(frozen=True)
class Strike:
    """Kills a rank, or raises there: at a step, or where its files are written and the checkpoint is not seen yet."""

    rank: int
    what: str
    step: int
    once: str = ""  # a file that tells that it has struck
    error: bool = False

    def __call__(self, what, step):
        if (dist.get_rank(), what, step) == (self.rank, self.what, self.step) and not os.path.exists(self.once):
            if self.once:
                open(self.once, "x").close()
            if self.error:
                raise ValueError("a bug")
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By dropout, the undisturbed run on four ranks."""
    where = tmp_path_factory.mktemp("whole")
    return {p: launch(Job(f"{where}/{p}", dropout=p, every=0), ranks=4) for p in (0.0, 0.1)}


def test_killed_ranks_change_nothing(tmp_path, whole):
    """In a step, and in a save; each rank has a generator of its own, which dropout draws from."""
    log, struck = tmp_path / "log", tmp_path / "struck"
    job = Job(str(tmp_path / "run"), dropout=0.1, log=str(log), hook=Strike(0, "saving", 15, str(struck)))
    run = supervise(job, faults=[[Kill(2, "all_reduce", 12)]], backoff=QUICK)
    assert [(each.first, each.last, each.why, each.rank) for each in run.attempts] == [
        (0, 10, "killed", 2),
        (10, 10, "killed", 0),
        (10, 20, "", -1),
    ]
    for rank, result in enumerate(run.results):
        assert torch.equal(result.weights, whole[0.1][rank].weights)
        assert result.losses == whole[0.1][rank].losses[10:]
    assert newest(job.where) == 20 and latest_whole(job.where)

    events = goodput.read(log)
    parts = account(events)
    assert parts.total_s == pytest.approx(events[-1].at_s - events[0].at_s, abs=1e-9)
    assert (parts.kept, parts.redone) == (
        20,
        2 + 5,
    )  # 10 and 11 of the first attempt, 10 to 14 of the second
    assert all(seconds > 0 for name, seconds in vars(parts).items() if name.endswith("_s"))
    assert parts.ettr == parts.useful_s / parts.total_s < 1


def test_the_world_shrinks_and_grows(tmp_path, whole):
    faults = [[Kill(3, "all_reduce", 7)], [Kill(0, "all_reduce", 6)]]
    run = supervise(Job(str(tmp_path)), ranks=[4, 3, 4], faults=faults, backoff=QUICK)
    assert [(each.ranks, each.first) for each in run.attempts] == [(4, 0), (3, 5), (4, 10)]
    assert run.results[0].losses == pytest.approx(whole[0.0][0].losses[10:], abs=1e-5)
    torch.testing.assert_close(run.results[0].weights, whole[0.0][0].weights, atol=1e-5, rtol=0)


def test_a_world_as_large_as_there_are_machines(tmp_path):
    """A function of what has happened: without the rank that died."""
    run = supervise(
        Job(str(tmp_path), steps=4, every=2),
        ranks=lambda attempts: 3 - len(attempts),
        faults=[[Kill(1, "all_reduce", 3)]],
        backoff=QUICK,
    )
    assert [each.ranks for each in run.attempts] == [3, 2] and len(run.results) == 2


def test_back_off_doubles_until_there_is_progress_and_the_cap_ends_it(tmp_path):
    """The first attempt saves at step 2; then rank 0 dies at step 3 each time."""
    waits = []
    job = Job(str(tmp_path), steps=6, every=2, hook=Strike(0, "begin", 3))
    with pytest.raises(GaveUp, match="4 restarts were not enough; the last attempt failed with killed") as caught:
        supervise(job, ranks=1, restarts=4, backoff=Backoff(1, most_s=5), sleep=waits.append)
    assert waits == [1, 2, 4, 5] and len(caught.value.attempts) == 5
    assert [each.waited_s for each in caught.value.attempts] == [0, *waits]


def test_back_off_begins_anew_after_a_new_checkpoint(tmp_path):
    waits = []
    faults = [[Kill(0, "all_reduce", 1)], [Kill(0, "all_reduce", 3)], [Kill(0, "all_reduce", 3)]]
    supervise(Job(str(tmp_path), steps=6, every=2), ranks=1, faults=faults, backoff=Backoff(1), sleep=waits.append)
    assert waits == [1, 1, 1]


def test_a_bug_is_not_mended_by_restarts(tmp_path):
    job = Job(str(tmp_path), steps=6, every=2, hook=Strike(0, "begin", 3, error=True))
    with pytest.raises(GaveUp, match="ValueError came twice after the checkpoint of step 2") as caught:
        supervise(job, ranks=1, restarts=10, backoff=QUICK)
    assert len(caught.value.attempts) == 2


def test_ranks_that_wait_for_ever_are_restarted(tmp_path):
    """Rank 1 leaves out an all-reduce; the others, and then it, wait for what will never come."""
    job = Job(str(tmp_path), steps=4, every=2)
    run = supervise(job, ranks=2, faults=[[Drop(1, "all_reduce", 3)]], backoff=QUICK, options={"still_s": 2})
    assert [each.why for each in run.attempts] == ["Deadlock", ""] and run.attempts[1].first == 2


def test_a_log_by_hand():
    """Two attempts: step 1 is done twice, a kill breaks step 2 off, and 1.5 s pass before it is noticed."""
    words = [(0, "launch"), (2, "ready"), (3, "step", 0), (3, "save", 0), (3.5, "saved", 0), (4.5, "step", 1)]
    words += [
        (5, "killed"),
        (6.5, "noticed"),
        (8, "launch"),
        (10, "ready"),
        (11, "step", 1),
        (13, "step", 2),
        (14, "end"),
    ]
    parts = account([Event(*each) for each in words])
    assert (parts.start_s, parts.useful_s, parts.save_s) == (4, 1 + 1 + 2, 0.5)
    assert (parts.lost_s, parts.detect_s, parts.wait_s, parts.close_s) == (1 + 0.5, 1.5, 1.5, 1)
    assert parts.total_s == 14 and parts.ettr == 4 / 14 and (parts.kept, parts.redone) == (3, 1)


def test_a_log_whose_last_line_is_torn(tmp_path):
    goodput.note(tmp_path / "log", "step", 3)
    goodput.note("", "step", 4)
    with open(tmp_path / "log", "a") as file:
        file.write('[12.5, "st')
    assert [(event.what, event.step) for event in goodput.read(tmp_path / "log")] == [("step", 3)]


def test_llama_3_bounds_what_an_interruption_may_cost():
    assert goodput.per_interruption_s(54, 466, 0.9) / 60 == pytest.approx(16.7, abs=0.02)
