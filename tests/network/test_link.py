"""A link's own numbers."""

import pytest

from parallel_lab.network import Link


def test_a_message_takes_latency_and_bytes_and_holds_a_port_as_long_unless_there_is_a_gap():
    assert Link(2.0, 10.0).seconds(30) == Link(2.0, 10.0).occupancy_s(30) == 5.0
    gap = Link(2.0, 10.0, gap_s=0.5)
    assert (gap.seconds(30), gap.occupancy_s(30), gap.occupancy_s(0)) == (5.0, 3.5, 0.5)
    assert Link(2.0, gap_s=0.0).seconds(1e9) == 2.0


@pytest.mark.parametrize("wrong", [{"latency_s": -1}, {"bytes_per_s": 0}, {"gap_s": -1}, {"latency_s": float("nan")}])
def test_a_link_must_make_sense(wrong):
    with pytest.raises(ValueError, match="a link has latency_s >= 0, bytes_per_s > 0 and gap_s >= 0"):
        Link(**wrong)
