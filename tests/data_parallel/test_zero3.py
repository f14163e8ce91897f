"""Stage 3 ends where one process and FSDP2 end: losses, shards, gradients and weights, at worlds of 1 to 4 ranks."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.data_parallel import Zero3, clip_grad_norm_
from parallel_lab.data_parallel.zero3_guards import NoGuards
from parallel_lab.model import GPTConfig, build, loss
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import make_mesh

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=3)
BATCH, STEPS = 12, 3
ADAM = (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})
SGD = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
TOLERANCE = 1e-12  # float64


class Alone(Zero3):
    """The algorithm of `zero3.py` and nothing else."""

    guards = NoGuards


def tied_and_frozen():
    """Tied weights, frozen parameters, a frozen unit, and rows that no number of ranks divides evenly."""
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    for parameter in [*model.blocks[1].attention.parameters(), *model.blocks[2].parameters()]:
        parameter.requires_grad_(False)
    return model


def trained(make, optimizer, group, clip=0.0, accumulate=1, no_sync=False):
    n = group.size()
    model = make(tied_and_frozen(), group)
    optimizer = optimizer[0](model.parameters(), **optimizer[1])
    for inputs, targets in text_batches(CONFIG.seq, BATCH, STEPS, rank=group.rank(), world=n):
        optimizer.zero_grad()
        for i, (x, y) in enumerate(zip(inputs.tensor_split(accumulate), targets.tensor_split(accumulate), strict=True)):
            model.set_requires_gradient_sync(not no_sync or i + 1 == accumulate)
            (loss(model(x), y) * len(x) * n / BATCH).backward()
        if clip:
            clip_grad_norm_(model, clip)
        optimizer.step()
    return model.full_state_dict()


CASES = {  # what does not interact goes together
    "adam": (lambda model, group: Alone(model, group=group), ADAM, {}),
    "momentum, no prefetch": (lambda model, group: Alone(model, prefetch=0, group=group), SGD, {}),
    "microbatches, kept": (
        lambda model, group: Alone(model, reshard_after_forward=False, group=group),
        ADAM,
        {"accumulate": 2},
    ),
    "no_sync, guarded": (lambda model, group: Zero3(model, group=group), ADAM, {"accumulate": 2, "no_sync": True}),
    "clipped, far prefetch": (lambda model, group: Zero3(model, prefetch=9, group=group), ADAM, {"clip": 0.5}),
    "units in units": (
        lambda model, group: Zero3(
            model, units=[*model.blocks, model.blocks[0].attention, model.head.norm], group=group
        ),
        ADAM,
        {},
    ),
    "one unit": (lambda model, group: Alone(model, units=[], group=group), SGD, {}),
}


def one_process(optimizer, clip):
    model = tied_and_frozen()
    optimizer = optimizer[0](model.parameters(), **optimizer[1])
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        if clip:
            assert nn.utils.clip_grad_norm_(model.parameters(), clip) > clip, "nothing was clipped"
        optimizer.step()
    return model.state_dict()


def apart(some, others):
    assert list(some) == list(others)
    return max((some[name] - others[name]).abs().max().item() for name in others)


def test_ends_where_one_process_ends():
    def fn():
        ends = {}
        for n in range(1, 5):
            group = dist.new_group(range(n))
            for name, (make, optimizer, settings) in CASES.items() if dist.get_rank() < n else ():
                if n == 3 or name == "adam":
                    ends[n, name] = trained(make, optimizer, group, **settings)
        return ends

    expected = {name: one_process(optimizer, s.get("clip")) for name, (_, optimizer, s) in CASES.items()}
    for ends in launch(fn, ranks=4).results:
        for (n, name), weights in ends.items():
            assert apart(weights, expected[name]) < TOLERANCE, (n, name)


class Net(nn.Module):
    """Rows for none, for some and for all ranks; an activation that is computed again; a buffer."""

    def __init__(self, norm=nn.BatchNorm1d):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(w, v), nn.Tanh()) for w, v in ((5, 7), (7, 2), (2, 5)))
        self.norm = norm(5)
        self.head = nn.Linear(5, 1)

    def forward(self, x):
        x = self.layers[1](self.layers[0](x))
        return self.head(self.norm(checkpoint(self.layers[2], x, use_reentrant=False)))


MIXED = {"compute_dtype": torch.bfloat16, "reduce_dtype": torch.float32}


def shards_of(model, with_gradients):
    """Names, this rank's rows, and their gradients, of either Zero3 or FSDP2."""
    local = lambda t: t.to_local() if hasattr(t, "to_local") else t  # noqa: E731
    return [
        (name, local(p).detach().clone(), local(p.grad).clone() if with_gradients else None)
        for name, p in model.named_parameters()
    ]


def fsdp2(model, mesh, compute_dtype=None, reduce_dtype=None, **settings):
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=reduce_dtype)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, **settings)
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def compare(mesh, optimizer_class, kwargs, dtype=torch.float64, steps=2, **settings):
    """How far Zero3 is from FSDP2 on this rank: in losses, rows, gradients, and rows at the end; or a word."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d if dtype == torch.float64 else nn.LayerNorm
    ours, theirs = Net(norm).to(dtype), Net(norm).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = Zero3(ours, units=ours.layers, group=mesh, **settings).module, fsdp2(theirs, mesh, **settings)
    optimizers = [optimizer_class(model.parameters(), **kwargs) for model in (ours, theirs)]
    off = 0.0
    torch.manual_seed(mesh.get_rank())
    for _ in range(steps):
        x, seen = torch.randn(6, 5, dtype=dtype), []
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            value = model(x).float().square().mean()
            value.backward()
            seen.append([("loss", value.detach(), value.detach()), *shards_of(model, True)])
            optimizer.step()
        seen += [[(n, p, p) for n, p, _ in shards_of(model, False)] for model in (ours, theirs)]
        for mine, other in (seen[:2], seen[2:]):
            for (name, row, grad), (their_name, their_row, their_grad) in zip(mine, other, strict=True):
                if name != their_name or row.shape != their_row.shape or row.dtype != their_row.dtype:
                    return f"{name} {row.shape} is not {their_name} {their_row.shape}"
                differences = [(row - their_row).abs(), (grad - their_grad).abs()]
                off = max([off, *(d.max().item() for d in differences if d.numel())])
    return off


def test_ends_where_fsdp2_ends():
    def fn():
        off = {}
        for n in range(1, 5):
            group = dist.new_group(range(n))
            if dist.get_rank() >= n:
                continue
            mesh = DeviceMesh.from_group(group, "cpu", mesh_dim_names=("dp",))
            off[n, "adam"] = compare(mesh, *ADAM)
            if n == 3:
                off[n, "mixed"] = compare(mesh, *SGD, dtype=torch.float32, **MIXED)
        mesh = make_mesh(replicate=2, shard=2)
        off["hybrid"] = compare(mesh, *ADAM)
        off["kept"] = compare(mesh, *ADAM, reshard_after_forward=False)
        off["of four, two"] = compare(make_mesh(dp=4), *ADAM, reshard_after_forward=2)
        return off

    for off in launch(fn, ranks=4).results:
        assert all(isinstance(value, float) for value in off.values()), off
        assert off.pop((3, "mixed"), 0.0) < 1e-6  # float32
        assert max(off.values()) < TOLERANCE, off
