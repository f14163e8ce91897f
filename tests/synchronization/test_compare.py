"""Comparing strategies over seeds, at equal samples and at equal simulated time."""

import pytest

from parallel_lab.synchronization import Stale, compare

WIDTHS = (64, 8, 10)


def test_comparison_at_equal_samples_and_at_equal_time():
    task, chosen = compare.digits(batch=8, widths=WIDTHS), compare.strategies(3)
    found = compare.curves(task, chosen, range(3), workers=3, updates=96, slow=3.0, points=8)
    assert found.keys() == chosen.keys() and all(len(some) == 3 for some in found.values())
    samples = compare.at_samples(found, 600)
    assert all(spread.seeds == 3 and spread.stdev > 0 for spread in samples.values())
    # In the time that the synchronous run takes for half its steps, the asynchronous one has finished.
    longest = {name: some[0].seconds[-1] for name, some in found.items()}
    assert longest["synchronous"] == pytest.approx(32 * 3.0)
    assert longest["asynchronous"] < longest["synchronous"] / 2
    moment = longest["asynchronous"]
    some = {name: found[name] for name in ("synchronous", "asynchronous")}
    seconds = compare.at_seconds(some, moment)
    by_hand = [[x for s, x in zip(c.seconds, c.losses, strict=True) if s <= moment][-1] for c in found["synchronous"]]
    assert seconds["synchronous"].mean == pytest.approx(sum(by_hand) / 3)
    with pytest.raises(ValueError, match="outside a curve"):
        compare.at_seconds(found, 1000.0)


def test_seeds_spread_over_parts_and_tuned_rates():
    task = compare.digits(batch=8, widths=WIDTHS)
    chosen = {name: compare.strategies(2)[name] for name in ("synchronous", "asynchronous")}
    settings = {"workers": 2, "updates": 24, "points": 3}
    parts = [compare.curves(task, chosen, [seed], **settings) for seed in (0, 1)]
    whole = compare.curves(task, chosen, [0, 1], **settings)
    assert [c.losses for c in compare.merge(parts)["asynchronous"]] == [c.losses for c in whole["asynchronous"]]
    assert compare.tuned(task, chosen, [1e-4, 0.2, 1e6], **settings) == {"synchronous": 0.2, "asynchronous": 0.2}


def test_text_is_learnt_too():
    task = compare.language(batch=2)
    found = compare.curves(task, {"stale": Stale(1)}, [0], workers=2, updates=40, points=4)
    (curve,) = found["stale"]
    assert curve.losses[-1] < curve.losses[0] < 6.0
