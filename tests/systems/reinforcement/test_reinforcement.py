"""Rollouts and a trainer on ranks end where one process ends; staleness, bytes and order are what is planned."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.plan.check import check_plan
from parallel_lab.simulate import AlphaBeta, simulate
from parallel_lab.systems import reinforcement
from parallel_lab.systems.reinforcement import (
    Settings,
    Sorting,
    advantages,
    compare,
    objective,
    plan,
    sample,
    train,
    train_here,
)
from parallel_lab.systems.serving import Decoder

SHORT = Settings(task=Sorting(partial=True, warm_steps=2), steps=4, prompts=5, samples=4, staleness=0)


def on_ranks(settings, sizes):
    """What rank 0 has at several numbers of ranks."""
    found = {}
    for n in sizes:
        group: Any = dist.new_group(range(n))
        if dist.get_rank() < n:
            found[n] = train(settings, group=group)
    return found


@pytest.mark.parametrize("staleness", [0, 2])
def test_ranks_end_where_one_process_ends(staleness):
    settings = replace(SHORT, staleness=staleness)
    alone = train_here(settings)
    assert alone.staleness == [min(staleness, step) for step in range(4)]
    run = launch(on_ranks, settings, (2, 3, 4), ranks=4)
    for found in run[0].values():
        assert found.rewards == alone.rewards and found.staleness == alone.staleness
        assert found.drift == pytest.approx(alone.drift, abs=1e-9) and found.held_out == alone.held_out
    assert all(each is None for rank in (1, 2, 3) for each in run[rank].values())


def test_fresh_weights_have_a_ratio_of_1_and_old_ones_drift():
    fresh, old = (train_here(replace(SHORT, staleness=k)).drift for k in (0, 2))
    assert max(fresh) < 1e-10
    assert old[2] > 1e-3 and old[0] < 1e-10
    rounded = train_here(replace(SHORT, sent=torch.bfloat16)).drift  # other arithmetic is off-policy as well
    assert min(rounded) > 1e-4


@pytest.mark.parametrize(("workers", "staleness"), [(1, 0), (2, 1), (3, 5)])
def test_bytes_and_order(workers, staleness):
    settings = replace(SHORT, staleness=staleness)
    trace = launch(train, settings, ranks=workers + 1).trace
    assert trace.bytes_sent(0) == reinforcement.weight_bytes(settings, workers)
    sent = sum(trace.bytes_sent(rank) for rank in range(1, workers + 1))
    assert sent == settings.steps * reinforcement.rollout_bytes(settings)
    expected = plan(settings.steps, workers, staleness)
    check_plan(expected)
    begun = {(s.rank, s.kind, s.part): s for s in trace.spans if s.kind in ("train", "rollout")}
    assert len(begun) == len([op for row in expected.rows for op in row])
    for op, needed in expected.needs.items():
        for need in needed:
            assert begun[need[:3]].end_s <= begun[op[:3]].start_s


def test_the_plan_takes_as_long_as_its_formula():
    seconds = {"rollout": 3.0, "train": 2.0}
    ends = [
        s.end_s for k in (0, 1, 4) for s in simulate(plan(40, 2, k), AlphaBeta(0, 1, compute_s=seconds)).spans[39:40]
    ]
    assert ends == [40 * 5, 40 * 3 + 2, 40 * 3 + 2]
    assert [reinforcement.step_s(3.0, 2.0, k) for k in (0, 1, 4)] == [5, 3, 3]
    with pytest.raises(ValueError, match="workers=0"):
        plan(1, 0, 0)


def test_groups_are_their_own_baseline():
    found = advantages(torch.tensor([1.0, 0, 0, 1, 1, 1], dtype=torch.float64), 3)
    deviation = math.sqrt(1 / 3)
    assert found[:3].tolist() == pytest.approx([2 / 3 / deviation, *[-1 / 3 / deviation] * 2], rel=1e-3)
    assert found[3:].tolist() == [0, 0, 0]


def test_the_clip_stops_what_has_gone_far_enough():
    new = torch.tensor([[0.5], [0.5], [-0.5], [-0.5]], requires_grad=True)
    objective(new, torch.zeros(4, 1), torch.tensor([1.0, -1, 1, -1]), clip=0.2).backward()
    assert new.grad is not None
    assert [bool(each) for each in new.grad] == [False, True, True, False]
    plain = torch.zeros(2, 1, requires_grad=True)
    objective(plain, torch.zeros(2, 1), torch.tensor([1.0, -2]), clip=None).backward()
    with_ratio = torch.zeros(2, 1, requires_grad=True)
    objective(with_ratio, torch.zeros(2, 1), torch.tensor([1.0, -2]), clip=0.2).backward()
    assert plain.grad is not None and with_ratio.grad is not None
    assert torch.equal(plain.grad, with_ratio.grad)


def test_the_task_and_its_samples():
    task = Sorting(length=3, digits=6, warm_steps=1)
    prompts = torch.tensor([[3, 1, 2, 6], [5, 5, 0, 6]])
    answers = torch.tensor([[1, 2, 3], [0, 5, 0]])
    assert task.reward(prompts, answers).tolist() == [1, 0]
    assert Sorting(3, 6, partial=True).reward(prompts, answers).tolist() == [1, pytest.approx(2 / 3)]
    policy = task.policy(seed=0)
    rows = prompts.repeat(400, 1)
    rollout = sample(Decoder(policy, slots=len(rows)), task, rows, task.noise(len(rows), seed=0))
    again = task.policy(seed=0)
    torch.testing.assert_close(task.log_probabilities(again, rollout.sequences), rollout.log_probabilities)
    first = again(prompts)[0, -1].softmax(-1)  # how often each first token should come
    seen = rollout.sequences[::2, 4].bincount(minlength=7) / 400
    assert (seen - first).abs().max() < 4 * math.sqrt(0.25 / 400)


def test_the_shipped_table():
    """Every combination once; one run again; and what the chapter reads from it, seed by seed."""
    table = compare.shipped()
    keys = [(each.staleness, each.ratio, each.seed) for each in table]
    assert keys == [(k, ratio, seed) for k in compare.STALENESS for ratio in compare.RATIOS for seed in compare.SEEDS]
    assert compare.run(1, "clipped", 0)[3:] == pytest.approx(table[keys.index((1, "clipped", 0))][3:], abs=0.1)
    after = {key: each.after for key, each in zip(keys, table, strict=True)}
    for seed in compare.SEEDS:
        assert all(after[k, "clipped", seed] > after[k, "left out", seed] for k in (1, 2, 4, 8))
        assert after[1, "clipped", seed] > after[0, "clipped", seed]
    before = table[0].before
    assert compare.spread(table, 8, "left out")[0] < sum(each.before for each in table) / len(table) < 0.3
    assert 0.2 < before < 0.4


def test_the_table_is_written_as_it_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "STALENESS", (3,))
    monkeypatch.setattr(compare, "SEEDS", range(2))
    monkeypatch.setattr(compare, "run", lambda k, ratio, seed: compare.Result(k, ratio, seed, 0.25, 0.5 + seed / 4))
    monkeypatch.setattr(compare, "TABLE", tmp_path / "table.csv")
    compare.main()
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert rows[0].startswith("#") and rows[1:3] == ["staleness,ratio,seed,before,after", "3,clipped,0,0.25,0.5"]
    assert "3  clipped: 0.625 +- 0.177  left out: 0.625" in capsys.readouterr().out


def test_what_is_refused():
    with pytest.raises(Exception, match="a group of 1 rank"):
        launch(train, SHORT, ranks=1, echo=False)
    with pytest.raises(ValueError, match="staleness=-1"):
        train_here(replace(SHORT, staleness=-1))
