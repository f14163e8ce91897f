"""What carries no idea is never refused: a log file, an import, a print, a compiled helper, a child process."""

import subprocess

import pytest
import torch
import torch.distributed as dist
from grading import assert_passes, by_value, solutions

by_value(__name__)
RING = solutions("ring_all_reduce")["ring_all_reduce"]


def logs(tensor):
    with open(f"log-of-rank-{dist.get_rank()}.txt", "a") as file:
        print("here", file=file)


def plots(tensor):
    if dist.get_rank() == 0:
        import matplotlib.pyplot  # noqa: F401, PLC0415


def saves(tensor):
    torch.save(tensor, f"debug-{dist.get_rank()}.pt")


def runs(tensor):
    subprocess.run(["true"], check=True)


def prints(tensor):
    print("rank", dist.get_rank(), "has", tensor.sum())


@pytest.mark.parametrize("habit", [logs, plots, saves, runs, prints])
def test_right_answer_with_a_habit_passes(habit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ring_all_reduce(tensor):
        habit(tensor)
        return RING(tensor)

    assert_passes("ring_all_reduce", ring_all_reduce)


def test_a_docstring_may_name_what_the_exercise_builds():
    def sum_of_ranks(number):
        """Like what DistributedDataParallel does, and parallel_lab.collectives too."""
        total = number.clone()
        dist.all_reduce(total)
        return total

    assert_passes("sum_of_ranks", sum_of_ranks)
