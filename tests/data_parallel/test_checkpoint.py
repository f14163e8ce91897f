"""The form of a checkpoint, without ranks: any cut of the same parameters reads any other, or says what is missing."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from parallel_lab.data_parallel import checkpoint


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))


def stepped():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return net, optimizer


def saved(net, optimizer, ranks, cut):
    """The shards of `ranks` ranks; `cut(numel, rank)` is what a rank has of each parameter."""
    shards = []
    for rank in range(ranks):
        entries = {}
        for name, p in net.named_parameters():
            start, stop = cut(p.numel(), rank)
            flat = {k: v.view(-1)[start:stop] if v.dim() else v for k, v in optimizer.state[p].items()}
            entries[name] = checkpoint.entry(p.shape, p.dtype, start, p.view(-1)[start:stop], flat)
        groups = checkpoint.groups_of(optimizer.param_groups, {p: name for name, p in net.named_parameters()})
        group = SimpleNamespace(rank=lambda rank=rank: rank, size=lambda: ranks)
        buffers = dict(net.named_buffers())
        shards.append(checkpoint.shard(group, entries, optimizer="AdamW", groups=groups, replicated=buffers))
    return shards


def evenly(ranks):
    return lambda numel, rank: (numel * rank // ranks, numel * (rank + 1) // ranks)


def test_any_cut_reads_any_other():
    net, optimizer = stepped()
    for ranks in (1, 3):
        shards = saved(net, optimizer, ranks, evenly(ranks))[::-1]
        for other in (2, 5):
            for mine in saved(net, optimizer, other, evenly(other)):
                checkpoint.check_loadable(shards, mine)
                for name, each in mine["parameters"].items():
                    for start, _, values in each["pieces"]:
                        found = torch.full_like(values, 7.0)
                        state = checkpoint.load_parameter(shards, name, start, found)
                        assert torch.equal(found, values) and state.keys() == each["state"].keys()
                        for key in ("exp_avg", "exp_avg_sq"):
                            assert torch.equal(state[key], each["state"][key][0][2])
                        assert state["step"] == 1
        whole = checkpoint.consolidate(shards)
        assert all(torch.equal(whole["parameters"][name], p) for name, p in net.named_parameters())
        assert all(
            torch.equal(whole["state"][n]["exp_avg"], optimizer.state[p]["exp_avg"]) for n, p in net.named_parameters()
        )
        again = checkpoint.consolidate([checkpoint.from_torch(checkpoint.to_torch(shards), model())])
        assert repr({**again, "optimizer": "AdamW"}) == repr(whole)


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
    mine = saved(net, optimizer, 1, evenly(1))[0]
    two = saved(net, optimizer, 2, evenly(2))

    def refused(shards, text, **changes):
        with pytest.raises(ValueError, match=text):
            checkpoint.check_loadable(shards, mine | changes)

    refused([], "no shards")
    refused([{}], r"no shard_state\(\) of Zero1")
    refused(two[:1], r"element 7 of 0.weight \(5, 3\) is in none of the shards of ranks \[0\], and 2 ranks saved")
    refused([two[0], mine], "another ranks than rank 0's: they are not of one checkpoint")
    bare = {name: each | {"state": {}} for name, each in two[1]["parameters"].items()}
    refused([two[0], two[1] | {"parameters": bare}], "of exp_avg of 0.weight")
    refused([{**mine, "parameters": {}}], "lacks the parameter 0.weight")
    refused([mine], "parameters that this model lacks: 0.weight", parameters={})
    refused([mine], "is of AdamW, and here is SGD", optimizer="SGD")
    refused([mine], "had 1 groups, and has 0", groups=[])
    refused([mine], "lacks the buffer mean", replicated={"mean": torch.ones(1)})
    wider = {"0.weight": checkpoint.entry((6, 3), torch.float32)}
    refused([mine], r"0.weight is \(5, 3\) in the checkpoint and \(6, 3\) in this model", parameters=wider)
    others = [{"params": ["0.weight"]}, {"params": ["0.bias"]}]
    refused(
        [mine | {"groups": others[::-1]}], "0.weight was in group 1 of the optimizer, and is in group 0", groups=others
    )
    with pytest.raises(ValueError, match="treat each element by itself"):
        checkpoint.entry((4, 4), torch.float32, 0, torch.ones(2, 4), {"row": torch.ones(2)})
