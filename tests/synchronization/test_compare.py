"""Comparing strategies over seeds, at equal samples and at equal simulated time."""

import math
from statistics import fmean

import pytest

from parallel_lab.model import GPTConfig, build, digit_batches, digit_images
from parallel_lab.synchronization import Stale, Synchronous, compare


def digits():
    def batches(seed):
        return lambda worker, workers: digit_batches(8, 1000, seed=workers * seed + worker)

    return compare.Task(lambda seed: build((64, 8, 10), seed), batches, digit_images("test"), options={"lr": 0.2})


def test_curves_of_every_strategy_have_all_seeds_and_asynchrony_saves_simulated_time():
    chosen = compare.strategies(3)
    found = compare.curves(digits(), chosen, range(2), workers=3, updates=96, slow=3.0, points=8)
    assert found.keys() == chosen.keys() and all(len(some) == 2 for some in found.values())
    for one, other in found.values():
        assert one.samples == other.samples and one.seconds == other.seconds
        assert one.losses != other.losses
    # In the time that the synchronous run takes for half its steps, the asynchronous one has finished.
    assert found["synchronous"][0].seconds[-1] == 32 * 3.0
    assert found["asynchronous"][0].seconds[-1] < 32 * 3.0 / 2


def test_seeds_spread_over_parts_and_tuned_rates():
    task = digits()
    chosen = {name: compare.strategies(2)[name] for name in ("synchronous", "asynchronous")}
    settings = {"workers": 2, "updates": 24, "points": 3}
    parts = [compare.curves(task, chosen, [seed], **settings) for seed in (0, 1)]
    whole = compare.curves(task, chosen, [0, 1], **settings)
    assert [c.losses for c in compare.merge(parts)["asynchronous"]] == [c.losses for c in whole["asynchronous"]]
    assert compare.tuned(task, chosen, [1e-4, 0.2, 1e6], **settings) == {"synchronous": 0.2, "asynchronous": 0.2}


def test_text_is_learnt_too():
    task = compare.language(2, GPTConfig(seq=32, layers=2, heads=2, width=32))
    found = compare.curves(task, {"stale": Stale(1)}, [0], workers=2, updates=40, points=4)
    (curve,) = found["stale"]
    assert curve.losses[-1] < curve.losses[0] < 6.0


@pytest.mark.parametrize("task", ["digits SGD", "digits AdamW", "text AdamW"])
@pytest.mark.parametrize("column", ["loss", "loss_72s"])
def test_the_table_of_rates_has_ten_seeds_and_no_best_rate_at_its_edge(task, column):
    table, best = compare.tried(task, column), compare.best(task, column)
    assert table.keys() == best.keys() == {"synchronous", "asynchronous", "stale", "partial"}
    for name, some in table.items():
        assert all(len(losses) == 10 and all(map(math.isfinite, losses)) for losses in some.values())
        assert min(some) < best[name] < max(some)
        assert fmean(some[best[name]]) == min(map(fmean, some.values()))


def test_an_entry_of_the_table_is_found_again():
    task = compare.digits(16, options={"lr": 0.8})
    (curve,) = compare.curves(task, {"it": Synchronous()}, [100], slow=3.0, points=20)["it"]
    assert curve.losses[-1] == pytest.approx(compare.tried("digits SGD")["synchronous"][0.8][0], abs=1e-3)
