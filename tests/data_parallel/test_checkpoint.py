"""The form of a checkpoint, without ranks: any cut of the same parameters reads any other, or says what is missing."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from parallel_lab import launch
from parallel_lab.data_parallel import Zero2, Zero3, checkpoint


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))


def stepped():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return net, optimizer


class Pieces(torch.optim.AdamW):
    """Holds what one rank of several would hold of the moments."""


def held(net, optimizer, ranks, cut, rank):
    """What `rank` of `ranks` holds; `cut(numel, rank)` is what it has of each parameter."""
    parts, names = [], {}
    for name, p in net.named_parameters():
        start, stop = cut(p.numel(), rank)
        values = nn.Parameter(p.detach().view(-1)[start:stop])
        parts.append(checkpoint.Part(name, p.shape, start, values))
        names[p] = name
    inner = Pieces([part.values for part in parts])
    for part, p in zip(parts, net.parameters(), strict=True):
        flat = {
            k: v.view(-1)[part.start :][: len(part.values)] if v.dim() else v for k, v in optimizer.state[p].items()
        }
        inner.state[part.values].update(flat)
    groups = checkpoint.groups_of(optimizer.param_groups, names)
    group = SimpleNamespace(rank=lambda: rank, size=lambda: ranks)
    return checkpoint.Held(group, torch.device("cpu"), parts, inner, groups, net)


def saved(net, optimizer, ranks, cut):
    """The shards of `ranks` ranks."""
    return [held(net, optimizer, ranks, cut, rank).save() for rank in range(ranks)]


def evenly(ranks):
    return lambda numel, rank: (numel * rank // ranks, numel * (rank + 1) // ranks)


def test_any_cut_reads_any_other():
    net, optimizer = stepped()
    for ranks in (1, 3):
        shards = saved(net, optimizer, ranks, evenly(ranks))[::-1]
        for other in (2, 5):
            for mine in (held(net, optimizer, other, evenly(other), rank) for rank in range(other)):
                for part, (values, found) in zip(mine.parts, mine.read(shards), strict=False):  # then buffers
                    expected = mine.optimizer.state[values]
                    assert torch.equal(found.pop(""), part.values) and found.keys() == expected.keys()
                    assert all(torch.equal(found[key], value) for key, value in expected.items())
        whole = checkpoint.consolidate(shards)
        assert all(torch.equal(whole["parameters"][name], p) for name, p in net.named_parameters())
        assert all(
            torch.equal(whole["state"][n]["exp_avg"], optimizer.state[p]["exp_avg"]) for n, p in net.named_parameters()
        )
        again = checkpoint.consolidate([checkpoint.from_torch(checkpoint.to_torch(shards), model())])
        assert repr({**again, "optimizer": "Pieces"}) == repr(whole)


def test_what_is_saved_is_a_copy_of_its_own_elements_alone():
    net, optimizer = stepped()
    shard = saved(net, optimizer, 3, evenly(3))[1]
    for each in shard["parameters"].values():
        for _, _, values in [*each["pieces"], *each["state"]["exp_avg"]]:
            assert values.untyped_storage().nbytes() == values.nbytes
    before = repr(shard)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert repr(shard) == before


def test_what_is_missing_or_different_is_named():
    net, optimizer = stepped()
    here = held(net, optimizer, 1, evenly(1), 0)
    mine, two = here.save(), saved(net, optimizer, 2, evenly(2))

    def refused(shards, text, **changes):
        with pytest.raises(ValueError, match=text):
            here._replace(**changes).read(shards)

    refused([], "no shards")
    refused([{}], r"no shard_state\(\) of Zero1")
    refused(two[:1], r"element 7 of 0.weight \(5, 3\) is in none of the shards of ranks \[0\], and 2 ranks saved")
    refused([two[0], mine], "another ranks than rank 0's: they are not of one checkpoint")
    bare = {name: each | {"state": {}} for name, each in two[1]["parameters"].items()}
    refused([two[0], two[1] | {"parameters": bare}], "of exp_avg of 0.weight")
    refused([{**mine, "parameters": {}}], "lacks the parameter 0.weight")
    refused([mine], "parameters that this model lacks: 0.weight, 0.bias", parts=[])
    refused([mine], "is of Pieces, and here is SGD", optimizer=torch.optim.SGD(net.parameters()))
    refused([mine], "had 1 groups, and has 0", groups=[])
    refused([mine], "lacks the buffer running_mean", module=nn.BatchNorm1d(5))
    wider = [checkpoint.Part("0.weight", (6, 3), 0, None)]
    refused([mine], r"0.weight is \(5, 3\) in the checkpoint and \(6, 3\) in this model", parts=wider)
    others = [{"params": ["0.weight"]}, {"params": ["0.bias"]}]
    refused(
        [mine | {"groups": others[::-1]}], "0.weight was in group 1 of the optimizer, and is in group 0", groups=others
    )
    with pytest.raises(ValueError, match="treat each element by itself"):
        checkpoint.Part("w", (4, 4), 0, torch.ones(2, 4)).entry({"row": torch.ones(2)})


class Tied(nn.Module):
    """Two names for one weight, a buffer that is saved and one that is not, and perhaps a parameter without dims."""

    def __init__(self, *dims):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight, self.scale = self.first.weight, nn.Parameter(torch.full(dims, 2.0))
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("mask", torch.ones(2), persistent=False)

    def forward(self, x):
        return self.again(self.first(x)) * self.scale


def step(net, optimizer):
    optimizer.zero_grad()
    net(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()


def alone(*dims, steps):
    net = Tied(*dims)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(steps):
        step(net, optimizer)
    return net, optimizer


def assert_close(some, others):
    torch.testing.assert_close(dict(some), dict(others), rtol=0, atol=1e-6)  # float32


def test_fsdp2_loads_what_to_torch_gives_tied_weights_too(tmp_path):
    def save():
        two, three = Zero2(Tied(1), torch.optim.AdamW, lr=0.1), Zero3(Tied(1))
        adam = torch.optim.AdamW(three.parameters(), lr=0.1)
        step(two, two)
        step(three, adam)
        return two.shard_state(), three.shard_state(adam)

    def load(states):
        ends = []
        for stage, state in states.items():
            dcp.save(state, checkpoint_id=tmp_path / stage)
            net = fully_shard(Tied(1))
            adam = torch.optim.AdamW(net.parameters(), lr=0.5)
            mine = dict(zip(("model", "optim"), get_state_dict(net, adam), strict=True))
            dcp.load(mine, checkpoint_id=tmp_path / stage)
            set_state_dict(net, adam, model_state_dict=mine["model"], optim_state_dict=mine["optim"])
            step(net, adam)
            ends.append({name: v.full_tensor() if name != "kept" else v for name, v in net.state_dict().items()})
        return ends

    shards = zip(("zero2", "zero3"), zip(*launch(save, ranks=2).results, strict=True), strict=True)
    states = {stage: checkpoint.to_torch(each) for stage, each in shards}
    expected = alone(1, steps=2)[0].state_dict()
    assert all(state["model"].keys() == expected.keys() for state in states.values())
    for ends in launch(load, states, ranks=2).results:
        for end in ends:
            assert_close(end, expected)


def test_one_process_and_stage_2_go_on_from_each_other_in_torch_s_form():
    def fn(state=None):
        two = Zero2(Tied(), torch.optim.AdamW, lr=0.1 if state is None else 0.5)
        if state:
            two.load_shard_state([checkpoint.from_torch(state, two.module)])
        step(two, two)
        return two.shard_state()

    net, optimizer = alone(steps=1)
    state = dict(zip(("model", "optim"), get_state_dict(net, optimizer), strict=True))
    shards, more = launch(fn, ranks=2).results, launch(fn, state, ranks=2).results
    other = Tied()
    adam = torch.optim.AdamW(other.parameters(), lr=0.5)
    whole = checkpoint.to_torch(shards)
    set_state_dict(other, adam, model_state_dict=whole["model"], optim_state_dict=whole["optim"])
    step(other, adam)
    expected = alone(steps=2)[0].state_dict()
    assert_close(other.state_dict(), expected)
    assert_close(checkpoint.to_torch(more)["model"], expected)
