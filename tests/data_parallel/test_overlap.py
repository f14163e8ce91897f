"""The closed forms of overlap, held against the simulated plan of a step."""

import pytest

from parallel_lab import Link
from parallel_lab.data_parallel import ddp
from parallel_lab.data_parallel.overlap import step_s, tokens_that_hide
from parallel_lab.simulate import AlphaBeta, simulate

FLOPS_PER_S, LINK = 400e12, Link(latency_s=0.0, bytes_per_s=50e9)


def simulated(n, parameters, tokens, buckets, gradient_bytes=2, overlap=True):
    """The trace of a step of `tokens` tokens per rank, and the seconds of its backward pass and of a bucket."""
    backward_s = 4 * parameters * tokens / FLOPS_PER_S
    each = {"F": backward_s / 2, "B": backward_s / buckets, "update": 0.0}
    cost = AlphaBeta.over(LINK, gradient_bytes * parameters / buckets, each, ranks=n)
    bucket_s = 2 * (n - 1) / n * gradient_bytes * parameters / buckets / LINK.bytes_per_s
    return simulate(ddp.plan(1, buckets, overlap), cost), backward_s, bucket_s


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("buckets", [1, 4, 100])
@pytest.mark.parametrize("tokens", [1_000, 8_000, 64_000])
@pytest.mark.parametrize("n", [2, 64])
def test_the_seconds_of_a_step(n, tokens, buckets, overlap):
    trace, backward_s, bucket_s = simulated(n, 1e9, tokens, buckets, overlap=overlap)
    assert trace.duration_s == pytest.approx(step_s(backward_s / 2, backward_s, buckets, bucket_s, overlap))


@pytest.mark.parametrize("gradient_bytes", [2, 4])
@pytest.mark.parametrize("n", [2, 3, 64])
@pytest.mark.parametrize("parameters", [1e8, 70e9])
def test_from_so_many_tokens_on_only_the_last_bucket_shows(parameters, n, gradient_bytes):
    enough = tokens_that_hide(FLOPS_PER_S, LINK.bytes_per_s, gradient_bytes, ranks=n)
    for tokens, hidden in [(1.01 * enough, True), (0.9 * enough, False)]:
        trace, backward_s, bucket_s = simulated(n, parameters, tokens, 50, gradient_bytes)
        only_the_last_shows = trace.duration_s <= 1.5 * backward_s + 1.0001 * bucket_s
        assert only_the_last_shows == hidden


def test_the_rule_of_thumb():
    assert tokens_that_hide(400e12, 50e9) == 8_000
    assert tokens_that_hide(400e12, 50e9, gradient_bytes=4) == 16_000
    assert tokens_that_hide(400e12, 50e9, ranks=2) == 4_000
