"""What stage 3 saves goes on anywhere: at other numbers of ranks, in FSDP2, from FSDP2, from the meta device."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from parallel_lab import launch
from parallel_lab.data_parallel import Zero3, consolidate, from_torch, to_torch, zero3_torch
from parallel_lab.model import GPTConfig, build, loss
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import make_mesh

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=2)
BATCH, STEPS = 12, 4
TOLERANCE = 1e-12  # float64


def model(seed=0):
    model = build(CONFIG, seed=seed, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    return model


def adam(net, lr=0.01):
    trained = [p for p in net.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.dim() >= 2], [p for p in trained if p.dim() < 2]
    return torch.optim.AdamW([{"params": matrices[0], "weight_decay": 0.1}, {"params": matrices[1]}], lr=lr)


def run(net, optimizer, steps, n=None, rank=None):
    n, rank = n or dist.get_world_size(), dist.get_rank() if rank is None else rank
    for step, (x, y) in enumerate(text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n)):
        if step in steps:
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()


def expected():
    net = model()
    run(net, adam(net), range(STEPS), 1, 0)
    return net.state_dict()


def apart(some, others):
    return max((some[name] - others[name]).abs().max().item() for name in others)


@pytest.fixture(scope="module")
def saved():
    """For 1, 2 and 3 ranks the shards that they saved after two steps."""

    def fn():
        shards = {}
        for n in (1, 2, 3):
            group = dist.new_group(range(n))
            if dist.get_rank() < n:
                net = Zero3(model(), group=group)
                optimizer = adam(net)
                run(net, optimizer, range(2), n, dist.get_rank())
                shards[n] = net.shard_state(optimizer)
        return shards

    results = launch(fn, ranks=3).results
    return {n: [results[rank][n] for rank in range(n)] for n in results[0]}


def go_on(shards, group=None, meta=False):
    """The weights after the last two steps; everything else was another model, seed and rate before."""
    if meta:
        with torch.device("meta"):
            net = model()
        net = Zero3(net, group=group)
        net.to_empty(device="cpu")
        optimizer = adam(net, lr=0.5)
    else:
        net = Zero3(model(seed=1), group=group)
        optimizer = adam(net, lr=0.5)
        run(net, optimizer, range(1), net.group.size(), net.group.rank())
    net.load_shard_state(shards, optimizer)
    run(net, optimizer, range(2, 4), net.group.size(), net.group.rank())
    return net.full_state_dict()


def test_goes_on_at_any_number_of_ranks_and_from_the_meta_device(saved):
    one_file = [from_torch(to_torch(saved[2]), model())]
    checkpoints = {1: [one_file], 2: [saved[1], saved[3], one_file], 4: [saved[1], saved[3]]}

    def fn():
        ends = []
        for m, saves in checkpoints.items():
            group = dist.new_group(range(m))
            ends += [go_on(shards[::-1], group, meta=m == 2) for shards in saves if dist.get_rank() < m]
        return ends

    target = expected()
    for ends in launch(fn, ranks=4).results:
        assert all(apart(weights, target) < TOLERANCE for weights in ends)


def test_consolidated_moments_are_those_of_one_process_and_a_file_holds_its_own_rows(saved):
    shards = saved[3]
    whole = consolidate(shards)
    alone = model()
    optimizer = adam(alone)
    run(alone, optimizer, range(2), 1, 0)
    for name, parameter in alone.named_parameters():
        assert (whole["parameters"][name] - parameter).abs().max() < TOLERANCE
        for key, value in optimizer.state.get(parameter, {}).items():
            torch.testing.assert_close(whole["state"][name][key], value, rtol=0, atol=TOLERANCE)
    assert whole["groups"][0]["lr"] == 0.01
    rows = [s["parameters"]["blocks.0.attention.query.weight"]["pieces"] for s in shards]
    assert all(len(each) == 1 for each in rows)


def fsdp2(net, mesh):
    for block in net.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def test_exchange_with_fsdp2_through_torch_distributed_checkpoint(tmp_path):
    def fn():
        mesh, ends = make_mesh(dp=2), []
        ours = Zero3(model(), group=mesh)
        optimizer = adam(ours)
        run(ours, optimizer, range(2))
        zero3_torch.save(ours, tmp_path / "ours", optimizer)
        theirs = fsdp2(model(seed=1), mesh)
        optimizer = adam(theirs, lr=0.5)
        state = dict(zip(("model", "optim"), get_state_dict(theirs, optimizer), strict=True))
        dcp.load(state, checkpoint_id=tmp_path / "ours")
        set_state_dict(theirs, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"])
        run(theirs, optimizer, [2])
        ends.append({name: t.full_tensor() for name, t in theirs.state_dict().items()})
        state = dict(zip(("model", "optim"), get_state_dict(theirs, optimizer), strict=True))
        dcp.save(state, checkpoint_id=tmp_path / "theirs")
        again = Zero3(model(seed=2))
        optimizer = adam(again, lr=0.5)
        zero3_torch.load(again, tmp_path / "theirs", optimizer)
        ends.append(again.full_state_dict())
        run(again, optimizer, [3])
        return [*ends, again.full_state_dict()]

    for theirs, loaded, end in launch(fn, ranks=2).results:
        assert apart(loaded, theirs) == 0.0
        assert apart(end, expected()) < TOLERANCE


def test_a_model_from_the_meta_device_starts_as_one_process_does():
    def net():
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))

    def fn():
        torch.manual_seed(dist.get_rank())
        with torch.device("meta"):
            model = net()
        sharded = Zero3(model, prefetch=0)
        sharded.materialize("cpu")
        torch.manual_seed(0)
        alone = net()
        torch.manual_seed(0)
        for module in alone.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        found = sharded.full_state_dict()
        same = all(torch.equal(found[name], value) for name, value in alone.state_dict().items())
        sharded(torch.ones(2, 5)).sum().backward()
        return same, [tuple(p.shape) for p in sharded.parameters()][:2]

    assert [r[0] for r in launch(fn, ranks=3).results] == [True] * 3


def test_what_cannot_be_loaded_says_why_and_changes_nothing(saved):
    two = saved[2]

    def fn():
        net = Zero3(model())
        optimizer, texts = adam(net), []
        run(net, optimizer, range(1))
        before = net.full_state_dict()
        for shards in (two[:1], [{}, {}]):
            try:
                net.load_shard_state(shards if dist.get_rank() else two, optimizer)
            except ValueError as error:
                texts.append(str(error))
                if "cannot go on" not in str(error):
                    dist.barrier()  # lets the other go, who waits for the culprit
        return texts, apart(net.full_state_dict(), before)

    (told, same), (texts, too) = launch(fn, ranks=2).results
    assert "is in none of the shards of ranks [0], and 2 ranks saved" in texts[0] and "no shard_state()" in texts[1]
    assert all("cannot go on" in text for text in told) and same == too == 0.0
    assert len(told) == 2
