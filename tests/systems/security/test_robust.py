"""Rules against their definitions, breakdown points and bounds; ranks against one process; what each rule cannot do."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from scipy import stats

from parallel_lab import launch
from parallel_lab.model import build
from parallel_lab.model.digits import digit_images
from parallel_lab.systems.security import coordinate_median, krum, poisoned_job, robust, trimmed_mean

pytestmark = pytest.mark.usefixtures("by_value")
SEEDS = range(2)
JOB = poisoned_job.Job(steps=80)


def _rows(n, d=40, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [5, 6, 9, 12])
def test_rules_are_what_they_are_defined_as(n):
    rows = _rows(n)
    f = robust.most_lies("Krum", n)
    torch.testing.assert_close(coordinate_median(rows, f), rows.quantile(0.5, dim=0))
    wanted = torch.tensor(stats.trim_mean(rows.numpy(), (f + 0.01) / n, axis=0))
    torch.testing.assert_close(trimmed_mean(rows, f), wanted)
    scores = []
    for i in range(n):
        others = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(others[: n - f - 2]))
    assert robust.krum_scores(rows, f).tolist() == pytest.approx(scores)
    assert torch.equal(krum(rows, f), rows[scores.index(min(scores))])
    torch.testing.assert_close(trimmed_mean(rows, 0), robust.mean(rows))


def test_each_rule_says_how_many_gradients_it_needs():
    for name, rule in robust.RULES.items():
        for n in range(3, 12):
            f = robust.most_lies(name, n)
            assert rule(_rows(n), f).shape == (40,)
            if name != "mean":
                with pytest.raises(ValueError, match="this rule needs"):
                    rule(_rows(n), f + 1)
    assert [robust.most_lies("Krum", n) for n in (3, 5, 9)] == [0, 1, 3] and robust.most_lies("trimmed mean", 9) == 4
    with pytest.raises(ValueError, match="no rule"):
        robust.most_lies("mode", 5)


def test_one_lie_moves_the_mean_anywhere_and_the_others_stay_among_the_honest():
    honest, goal = _rows(7), torch.full((40,), 100.0, dtype=torch.float64)
    torch.testing.assert_close(robust.mean(torch.cat([honest, (8 * goal - honest.sum(0))[None]])), goal)
    lies = [robust.reversed_sign(honest, 2, 9), robust.not_numbers(honest, 2, 9), honest[:2] + 1e30, honest[:2] * 1e30]
    lies += [torch.stack([honest[0] + torch.inf, honest[0] - torch.inf])]
    for lie, order in itertools.product(lies, (0, 1)):
        rows = torch.cat([honest, lie] if order else [lie, honest])
        for rule in (coordinate_median, trimmed_mean):
            got = rule(rows, 2)
            assert bool(((got >= honest.amin(0)) & (got <= honest.amax(0))).all())
        assert any(torch.equal(krum(rows, 2), row) for row in honest)
        assert not torch.allclose(robust.mean(rows), robust.mean(honest))


def test_more_lies_than_said_break_every_rule():
    rows = torch.cat([_rows(4), torch.full((5, 40), 1e6, dtype=torch.float64)])
    for rule in (coordinate_median, trimmed_mean, krum):
        assert rule(rows, 3).abs().max() > 1e5


def _train(job, rule, attack=None, **settings):
    models = [poisoned_job.train(job, digit_images(), rule, attack, seed=seed, **settings) for seed in SEEDS]
    return models, [poisoned_job.accuracy(model, digit_images("test")) for model in models]


def test_lies_ruin_the_mean_and_not_the_others():
    _, honest = _train(replace(JOB, liars=0), "mean")
    assert min(honest) > 0.9
    for attack in (robust.reversed_sign, robust.not_numbers):
        for rule in robust.RULES:
            _, found = _train(JOB, rule, attack)
            assert max(found) < 0.2 if rule == "mean" else min(found) > 0.84, (attack.__name__, rule, found)


def test_where_ranks_have_other_classes_the_rules_take_honest_ranks_for_liars():
    job = replace(JOB, liars=0, by_class=True)
    found = {rule: _train(job, rule)[1] for rule in robust.RULES}
    worst = min(found.pop("mean"))
    assert worst > 0.9 and all(max(each) < worst for each in found.values()), "nobody lies here"


def test_a_little_is_enough_against_krum():
    _, little = _train(replace(JOB, liars=3, f=3), "Krum", robust.little)
    _, nobody = _train(replace(JOB, liars=0, f=3), "Krum")
    assert min(little) < 0.8 < min(nobody)
    honest = _rows(6)
    lie = robust.little(honest, 3, 9)[0]
    assert bool(((lie >= honest.amin(0)) & (lie <= honest.amax(0))).double().mean() > 0.9), "it hides in the spread"


def test_a_backdoor_no_further_away_than_honest_gradients_goes_through_the_mean_and_krum():
    test = digit_images("test")
    for rule in ("mean", "Krum"):
        models, right = _train(JOB, rule, backdoor=1.0)
        assert min(right) > 0.88 and min(poisoned_job.taken(model, test) for model in models) > 0.9, rule
    models, right = _train(replace(JOB, liars=0), "Krum")
    assert max(poisoned_job.taken(model, test) for model in models) < 0.1


def test_ranks_do_what_one_process_does_and_gather_all_gradients():
    job = poisoned_job.Job(n=5, liars=1, f=1, steps=3, batch=8)
    data, start = digit_images(), build(job.widths, dtype=torch.float64)
    parts = job.deal((data[0].double(), data[1]), 0)

    def batch(rank, step):
        images, labels = job.batches(parts, step, 0)
        return images[rank], labels[rank]

    def fn(batches, weights):
        rank, found = dist.get_rank(), {}
        for rule in robust.RULES:
            model = build(job.widths, dtype=torch.float64)
            model.load_state_dict(weights)
            for own in batches[rank]:
                poisoned_job.step(model, own, rule, job.f, job.lr, times=-10.0 if rank == 4 else 1.0)
            found[rule] = torch.cat([each.detach().flatten() for each in model.parameters()])
        return found

    run = launch(fn, [[batch(rank, step) for step in range(3)] for rank in range(5)], start.state_dict(), ranks=5)
    for rule in robust.RULES:
        model = build(job.widths, dtype=torch.float64)
        for step in range(3):
            rows = poisoned_job.gradients(model, *job.batches(parts, step, 0))
            rows[4] *= -10
            poisoned_job.descend(model, robust.RULES[rule](rows, job.f), job.lr)
        wanted = torch.cat([each.detach().flatten() for each in model.parameters()])
        for result in run.results:
            torch.testing.assert_close(result[rule], wanted, atol=1e-12, rtol=0)
            assert torch.equal(result[rule], run[0][rule]), "every rank has the same bits"
    assert run.trace.bytes_sent(0) == len(robust.RULES) * 3 * 4 * len(wanted) * 8, "(n - 1) S a step"
