"""A sample of the fault campaign: every drawn fault ends in the right report or recovery, and leaves nothing."""

import contextlib
import dataclasses
import os

import pytest
import torch

from parallel_lab import launch
from parallel_lab.systems.resilience import KINDS, Campaign, Case, Ground, campaign, strike
from parallel_lab.systems.resilience.faults import ACTIONS
from parallel_lab.systems.resilience.struck_job import MOMENTS, RANK_0, Shown

SEEDS = range(40)


def test_a_sample_of_the_campaign():
    done = campaign(SEEDS)
    assert not done.wrong, str(done)
    assert len(done.verdicts) == len(SEEDS)


def test_a_case_is_drawn_from_its_seed_alone():
    cases = [Case.draw(seed) for seed in range(1000)]
    assert cases == [Case.draw(seed) for seed in range(1000)]
    assert {case.kind for case in cases} == set(KINDS)
    assert {case.moment for case in cases} == {*MOMENTS, ""}
    assert {case.ranks for case in cases} == {2, 3, 4}
    assert all(case.rank == 0 for case in cases if case.moment in RANK_0)


def test_a_wrong_end_is_told_with_the_command_that_repeats_it(monkeypatch):
    """Bits that differ from those expected, and a report that says another thing, are found."""
    with Ground() as ground:
        case = next(case for case in map(Case.draw, range(100)) if case.kind == "exception" and case.ranks == 2)
        ground.bits[2] = 1
        monkeypatch.setitem(KINDS, "exception", KINDS["exception"]._replace(says="overflow"))
        found = Campaign((strike(case, ground),))
    assert "ended with other bits" in str(found) and "the report does not say 'overflow'" in str(found)
    assert f"again: python benchmarks/faults.py --runs 1 --seed {case.seed}" in str(found)
    assert found.wrong and dataclasses.replace(found.verdicts[0], problems=()).right


def test_the_folder_of_a_save_vanishes_whole_though_another_rank_writes_into_it(tmp_path, monkeypatch):
    partial, remove = tmp_path / ".000001-partial", os.rmdir
    partial.mkdir()

    def late(*where, **options):
        with contextlib.suppress(FileNotFoundError):
            (partial / "another rank's").touch()
        remove(*where, **options)

    monkeypatch.setattr(os, "rmdir", late)
    ACTIONS["folder vanishes"](Case.draw(0, "folder vanishes"), Shown("saving", 2, torch.nn.Identity(), partial))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_undisturbed_job_ends_alike_on_all_ranks(ranks):
    with Ground() as ground:
        assert ground.end(ranks) == ground.end(ranks)
    assert launch(int, ranks=ranks).results == [0] * ranks
