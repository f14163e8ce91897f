"""Cutting the vector: nothing lost, nothing doubled, even by bytes; snapshots say which layout they are of."""

import pytest
import torch
from torch import nn

from parallel_lab.parameter_server import shards, snapshots, vector
from parallel_lab.parameter_server.shard import Shard
from parallel_lab.parameter_server.sharding import Layout
from parallel_lab.parameter_server.wire import PUSH, Header
from parallel_lab.synchronization import Synchronous


@pytest.mark.parametrize("sizes", [[6, 3], [1], [5, 0, 7, 1], [1000, 1, 1], [2, 2]])
@pytest.mark.parametrize("servers", [1, 2, 3, 5, 8])
def test_shards_cover_the_vector_evenly(sizes, servers):
    found = shards(sizes, servers)
    covered = [i for pieces in found for piece in pieces for i in range(piece.start, piece.stop)]
    assert covered == list(range(sum(sizes)))
    held = [sum(piece.stop - piece.start for piece in pieces) for pieces in found]
    assert len(held) == servers and max(held) - min(held) <= 1


def test_a_big_tensor_is_split():
    assert shards([6, 3], 2) == [[slice(0, 5)], [slice(5, 6), slice(6, 9)]]


@pytest.mark.parametrize(("sizes", "servers"), [([1, -1], 1), ([3], 0)])
def test_bad_sizes(sizes, servers):
    with pytest.raises(ValueError):
        shards(sizes, servers)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)


def test_tied_parameters_count_once_and_frozen_ones_not():
    model = Tied()
    layout = vector.layout_of(model, 3)
    assert layout.names == ("first.weight", "second.bias") and sum(layout.sizes) == 20
    whole = vector.parameters_of(model)
    pieces = {}
    for shard, cut in enumerate(layout.bounds):
        pieces |= vector.named_pieces(layout, shard, whole[cut])
    assert list(pieces) == ["first.weight[0:7]", "first.weight[7:14]", "first.weight[14:16]", "second.bias"]
    assert torch.equal(torch.cat(list(pieces.values())), whole)


@pytest.mark.parametrize("servers", [1, 2, 3, 25])
def test_parameters_live_where_they_are_received(servers):
    model = Tied()
    layout, before = vector.layout_of(model, servers), vector.parameters_of(model)
    homes = [torch.full((cut.stop - cut.start,), float("nan")) for cut in layout.bounds]
    copies = vector.house_parameters(model, layout, homes)
    assert torch.equal(vector.parameters_of(model), before), "the model is as it was"
    for home, cut in zip(homes, layout.bounds, strict=True):
        home.copy_(before[cut] + 1)  # what comes in
    for each in copies:
        for target, values in each:
            target.copy_(values)
    assert torch.equal(vector.parameters_of(model), before + 1)
    assert model.second.weight is model.first.weight
    if servers == 1:
        assert copies == [[]], "nothing is cut, and nothing copied"
        home = homes[0].untyped_storage().data_ptr()
        assert {p.untyped_storage().data_ptr() for p in vector.trainable(model).values()} == {home}


def test_gradients_live_where_they_are_sent_from():
    model = Tied()
    found = vector.trainable(model)
    found["first.weight"].grad = torch.ones(4, 4)
    home = torch.empty(20)
    vector.house_gradients(model, home)
    assert home.tolist() == [1.0] * 16 + [0.0] * 4
    model.zero_grad(set_to_none=False)
    (2 * model.second.bias).sum().backward()
    assert home.tolist() == [0.0] * 16 + [2.0] * 4, "backward has written into the message"
    found["first.weight"].grad = torch.full((4, 4), 3.0).t()
    found["second.bias"].grad = None
    vector.copy_gradients(model, home)
    assert home.tolist() == [3.0] * 16 + [0.0] * 4, "a new one is copied, a missing one counts as zeros"


def test_models_that_cannot_be_served():
    with pytest.raises(ValueError, match="no trainable parameter"):
        vector.layout_of(nn.ReLU(), 1)
    with pytest.raises(TypeError, match=r"torch.float32 and torch.float64"):
        vector.layout_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), 1)


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.1)


LAYOUT = Layout(("w", "b"), ((2, 2), (3,)), "torch.float64", 1)


def push(shard, step):
    gradient = torch.arange(7, dtype=torch.float64) + step
    shard.push(0, Header(PUSH, 0, step, shard.state.version, 1), gradient)


def test_a_restored_shard_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = Shard(LAYOUT, 0, torch.ones(7, dtype=torch.float64), adam, Synchronous(), {0}, tmp_path, every=2)
    for step in range(3):  # the snapshot is of version 2
        push(whole, step)
    spare = Shard(LAYOUT, 0, torch.zeros(7, dtype=torch.float64), adam, Synchronous(), {0}, tmp_path, every=9)
    spare.restore()
    spare.seen(3)
    assert (spare.state.version, spare.restored, spare.lost) == (2, 2, 1)
    push(spare, 2)
    assert torch.equal(spare.parameter, whole.parameter)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Layout(("w", "b"), ((2, 2), (3,)), "torch.float64", 2), "2 shards, not 1"),
        (Layout(("w", "b"), ((2, 2), (3,)), "torch.float32", 1), "dtype torch.float32, not torch.float64"),
        (Layout(("w", "c"), ((2, 2), (3,)), "torch.float64", 1), r"c of shape \(3,\), not b of shape \(3,\)"),
        (Layout(("w", "b"), ((2, 2), (4,)), "torch.float64", 1), r"b of shape \(4,\), not b of shape \(3,\)"),
        (Layout(("w",), ((2, 2),), "torch.float64", 1), "1 trainable parameters, not 2"),
    ],
)
def test_a_snapshot_of_another_layout_says_which(tmp_path, other, words):
    snapshots.save(tmp_path, other, 0, 1, torch.zeros(1), {})
    with pytest.raises(ValueError, match=words):
        snapshots.load(tmp_path, LAYOUT, 0)


def test_no_snapshot_and_a_damaged_one(tmp_path):
    with pytest.raises(ValueError, match="no snapshot of shard 0"):
        snapshots.load(tmp_path, LAYOUT, 0)
    snapshots.file_of(tmp_path, 0).write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        snapshots.load(tmp_path, LAYOUT, 0)


def test_a_failed_write_leaves_the_snapshot_before(tmp_path):
    snapshots.save(tmp_path, LAYOUT, 0, 1, torch.zeros(7), {})
    with pytest.raises(AttributeError, match="pickle"):
        snapshots.save(tmp_path, LAYOUT, 0, 2, torch.ones(7), {"x": lambda: 0})
    assert snapshots.load(tmp_path, LAYOUT, 0)[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["shard0.pt"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        snapshots.prepare(tmp_path / "file" / "folder")
