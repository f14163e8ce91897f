"""Who keeps which part, and where tensors live that travel in shards."""

import pytest
import torch
from torch import nn

from parallel_lab import parameter_server as ps
from parallel_lab.parameter_server.shards import Homes, bounds, flat, trainable


@pytest.mark.parametrize("servers", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("sizes", [[6, 3], [1], [0, 4, 0], [10, 1, 1, 7], [], [3] * 7])
def test_shards_cover_everything_once_and_evenly(sizes, servers):
    found = ps.shards(sizes, servers)
    assert [i for kept in found for piece in kept for i in range(piece.start, piece.stop)] == list(range(sum(sizes)))
    held = [sum(piece.stop - piece.start for piece in kept) for kept in found]
    assert len(held) == servers and max(held) - min(held) <= 1


def test_a_big_tensor_is_split():
    assert ps.shards([6, 3], 2) == [[slice(0, 5)], [slice(5, 6), slice(6, 9)]]


@pytest.mark.parametrize(("sizes", "servers"), [([3], 0), ([1], -1)])
def test_bad_sizes(sizes, servers):
    with pytest.raises(ValueError):
        ps.shards(sizes, servers)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)


def test_tied_parameters_count_once_and_frozen_ones_not():
    model = Tied()
    assert list(trainable(model)) == ["first.weight", "second.bias"]
    assert torch.equal(flat(model), torch.cat([model.first.weight.reshape(-1), model.second.bias]))


@pytest.mark.parametrize("servers", [1, 2, 3, 25])
def test_tensors_live_in_the_shards_where_they_can(servers):
    like = list(trainable(Tied()).values())
    vectors = [torch.zeros(cut.stop - cut.start) for cut in bounds(20, servers)]
    homes = Homes(like, vectors)
    came = torch.arange(20.0)
    for shard, cut in enumerate(bounds(20, servers)):
        vectors[shard].copy_(came[cut])
        homes.arrived(shard)
    assert torch.equal(torch.cat([t.reshape(-1) for t in homes.tensors]), came)
    for tensor in homes.tensors:
        tensor.mul_(2)
    for shard in range(servers):
        homes.leaving(shard)
    assert torch.equal(torch.cat(vectors), 2 * came)
    if servers == 1:
        assert {t.untyped_storage().data_ptr() for t in homes.tensors} == {vectors[0].untyped_storage().data_ptr()}


def test_models_that_cannot_be_served():
    with pytest.raises(ValueError, match="no trainable parameter"):
        trainable(nn.ReLU())
    with pytest.raises(TypeError, match=r"torch.float32 and torch.float64"):
        trainable(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
