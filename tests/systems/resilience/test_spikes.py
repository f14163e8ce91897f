"""Loss spikes whose causes were really produced are traced to them, and a run without a fault has none."""

import pytest

from parallel_lab.systems.resilience import spike

FOUND = {
    "": ("none", -1, ""),
    "data": ("data", -1, "another checkpoint"),
    "learning rate": ("optimizer", -1, "the learning rate was wrong"),
    "second moment": ("optimizer", -1, "moments no longer fit"),
    "hardware once": ("hardware", -1, "no rank can be named"),
    "hardware always": ("hardware", 2, "rank 2 computes other bits"),
    "replica": ("hardware", 2, "rank 2 of 4 differs"),
}


@pytest.mark.parametrize("cause", FOUND)
def test_a_spike_is_traced_to_its_cause(cause):
    found = spike(cause, seed=1)
    kind, rank, words = FOUND[cause]
    assert (found.cause, found.rank) == (kind, rank), str(found)
    assert words in str(found)


def test_an_unknown_cause():
    with pytest.raises(ValueError, match="no cause is called 'moon'"):
        spike("moon")
