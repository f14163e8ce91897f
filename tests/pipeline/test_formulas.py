"""Every schedule reaches its closed forms: idle time, held activations, messages; swept over p, m and v.

Times are multiples of 1/6, so that sums are exact up to the last digits: 1e-9 absolute.
"""

import pytest
from sweeps import V_SHAPED, chunks, cost, plan_of, sizes

from parallel_lab.pipeline import formulas, repeated, with_messages
from parallel_lab.plan import check_plan
from parallel_lab.simulate import simulate

NEAR = {"abs": 1e-9, "rel": 0}
UNEQUAL = [(1, 1.5, 0.5), (2, 1, 1), (1, 2, 3), (3, 1, 2)]  # where each of the terms of a maximum is the largest


def is_closed(name, p, m):
    return m >= {"zb_h1": p, "zb_h2": 2 * p - 1, "zb_v": 2 * p - 1, "dualpipe_v": 2 * p}.get(name, 1)


def idle(trace, p, work_s):
    return trace.duration_s - work_s, max(trace.window_s(rank) for rank in range(p)) - work_s


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 8, 12])
def test_idle_and_held(p):
    for name, _, m, v in sizes(p):
        plan = plan_of(name, p, m, v)
        check_plan(plan)
        trace = simulate(plan, cost(name, v, activation_bytes=1))
        held = [trace.peak_bytes(rank) / chunks(name, v) for rank in range(p)]
        assert held == [formulas.peak_activations(name, p, m, rank, v=v) for rank in range(p)], (name, m, v)
        if is_closed(name, p, m):
            both = [formulas.idle_s(name, p, m, v=v, own=own) for own in (False, True)]
            assert idle(trace, p, 3 * m) == pytest.approx(both, **NEAR), (name, m, v)
            rates = [formulas.bubble(name, p, m, v=v, own=own) for own in (False, True)]
            assert [trace.bubble(), trace.bubble(own=True)] == pytest.approx(rates, **NEAR), (name, m, v)


@pytest.mark.parametrize("passes", UNEQUAL)
def test_idle_where_passes_differ(passes):
    for name, p, m, v in sizes(2, 3, 4, 6):
        if is_closed(name, p, m) and name not in V_SHAPED:
            trace = simulate(plan_of(name, p, m, v), cost(name, v, passes))
            both = [formulas.idle_s(name, p, m, v=v, passes=passes, own=own) for own in (False, True)]
            assert idle(trace, p, m * sum(passes)) == pytest.approx(both, **NEAR), (name, p, m, v)


@pytest.mark.parametrize("name", ["zb_h1", "zb_h2"])
@pytest.mark.parametrize("p", [1, 2, 4, 7])
def test_what_i_gives_back_counts(name, p):
    """With M_B = 10 and M_W = 4: table 2 of Zero Bubble has them for a large m."""
    for m in (1, 2, p, p + 1, 2 * p, 3 * p):
        trace = simulate(plan_of(name, p, m), cost(name, activation_bytes=10, weight_bytes=4))
        expected = [10 * formulas.peak_activations(name, p, m, rank, weight_share=0.4) for rank in range(p)]
        assert [trace.peak_bytes(rank) for rank in range(p)] == pytest.approx(expected), m


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
def test_messages(p):
    for name, _, m, v in sizes(p):
        plan = with_messages(plan_of(name, p, m, v))
        check_plan(plan)
        short = 1 / 256
        trace = simulate(plan, cost(name, v, message_s=short, message_bytes=7))
        sent = [m * formulas.messages(name, p, v=v, rank=rank) for rank in range(p)]
        assert [trace.messages(rank) for rank in range(p)] == sent, (name, m, v)
        assert [trace.bytes_sent(rank) for rank in range(p)] == [7 * count for count in sent]
        assert sum(sent) == m * formulas.messages(name, p, v=v)
        if m >= 2 * p and (name != "one_f_one_b" or m % p == 0):
            longer = trace.duration_s - 3 * m - formulas.idle_s(name, p, m, v=v)
            assert longer / short == pytest.approx(formulas.message_delays(name, p, m, v=v), abs=1e-6), (name, m, v)


def test_the_bubble_of_1f1b_is_gpipes_only_without_messages():
    """1F1B pays a round trip for each p microbatches, GPipe one for all: groundless to call their bubbles equal."""
    longer = {m: formulas.message_delays("one_f_one_b", 4, m) for m in (16, 32)}
    assert longer == {16: 28, 32: 52}
    assert formulas.message_delays("gpipe", 4, 16) == formulas.message_delays("gpipe", 4, 32) == 6


def test_h2_gains_over_h1_only_in_a_row_of_steps():
    """What one to several steps take above their work, with no barrier between them: p = 4, each pass 1."""
    p, m = 4, 12
    above = {
        name: [simulate(repeated(plan_of(name, p, m), k), cost(name)).duration_s - 3 * m * k for k in (1, 2, 3, 4)]
        for name in ("one_f_one_b", "zb_h1", "zb_h2", "zb_v")
    }
    assert above["one_f_one_b"] == [9, 18, 27, 36]
    assert above["zb_h1"] == [3, 6, 9, 12]
    assert above["zb_h2"] == [3, 3, 3, 3]
    assert above["zb_v"] == [1.5, 1.5, 1.5, 1.5]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: formulas.idle_s("zb_h1", 4, 3), "zb_h1 with p = 4 has a closed form from m = 4 on, and m is 3"),
        (lambda: formulas.idle_s("zb_h2", 4, 6), "from m = 7 on"),
        (lambda: formulas.bubble("dualpipe_v", 4, 7), "from m = 8 on"),
        (lambda: formulas.idle_s("zb_v", 4, 8, passes=(1, 2, 1)), "where T_F = T_I = T_W, and they are 1, 2, 1"),
        (lambda: formulas.idle_s("1f1b", 4, 8), "'1f1b' is no schedule: there are gpipe, one_f_one_b"),
        (lambda: formulas.idle_s("gpipe", 0, 8), "p = 0, m = 8, v = 1: each is at least 1"),
        (lambda: formulas.peak_activations("interleaved", 4, 6, 0), "m = 6 is no multiple of p = 4"),
        (lambda: formulas.peak_activations("zb_v", 4, 8, 0, weight_share=0.5), "only if I frees nothing"),
        (lambda: formulas.message_delays("one_f_one_b", 4, 9), "in 1F1B for multiples of p; m is 9"),
    ],
)
def test_where_there_is_no_closed_form(call, said):
    with pytest.raises(ValueError, match=said):
        call()
