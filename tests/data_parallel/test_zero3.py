"""Stage 3 ends where one process and FSDP2 end, gathers before use, frees after it, and sends its formula."""

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.agree.problem import FLAG_BYTES
from parallel_lab.data_parallel import Zero3, clip_grad_norm_, formulas
from parallel_lab.model import GPTConfig, build, loss, train
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import make_mesh

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=3)
BATCH, STEPS = 12, 3
OPTIMIZERS = [(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})]
TOLERANCE = 1e-12  # float64


def tied_and_frozen():
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    for parameter in model.blocks[1].attention.parameters():
        parameter.requires_grad_(False)
    for parameter in model.blocks[2].parameters():
        parameter.requires_grad_(False)
    return model


def trained(optimizer_class, kwargs, clip=0.0, accumulate=1, no_sync=False, prefetch=1, units=None):
    n, rank = dist.get_world_size(), dist.get_rank()
    whole = tied_and_frozen()
    model = Zero3(whole, prefetch=prefetch, units=units and units(whole))
    optimizer = optimizer_class(model.parameters(), **kwargs)
    for inputs, targets in text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n):
        optimizer.zero_grad()
        for i, (x, y) in enumerate(zip(inputs.tensor_split(accumulate), targets.tensor_split(accumulate), strict=True)):
            weight = len(x) * n / BATCH
            if no_sync and i + 1 < accumulate:
                with model.no_sync():
                    (loss(model(x), y) * weight).backward()
            else:
                (loss(model(x), y) * weight).backward()
        if clip:
            clip_grad_norm_(model, clip)
        optimizer.step()
    assert sum(unit.held_bytes + unit.buffer_bytes for unit in model.units) == 0
    return model.full_state_dict()


def one_process(optimizer_class, kwargs):
    return train(tied_and_frozen(), text_batches(CONFIG.seq, BATCH, STEPS), optimizer_class, **kwargs).weights


def apart(some, others):
    assert list(some) == list(others)
    return max((some[name] - others[name]).abs().max().item() for name in others)


@pytest.mark.parametrize(("optimizer_class", "kwargs"), OPTIMIZERS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ends_where_one_process_ends(n, optimizer_class, kwargs):
    expected = one_process(optimizer_class, kwargs)
    for weights in launch(trained, optimizer_class, kwargs, ranks=n).results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("no_sync", [False, True])
def test_microbatches_add_up(no_sync):
    expected = one_process(*OPTIMIZERS[1])
    for weights in launch(trained, *OPTIMIZERS[1], accumulate=3, no_sync=no_sync, ranks=2).results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("prefetch", [0, 2, 9])
def test_prefetch_changes_nothing_but_the_order(prefetch):
    for weights in launch(trained, *OPTIMIZERS[1], prefetch=prefetch, ranks=2).results:
        assert apart(weights, one_process(*OPTIMIZERS[1])) < TOLERANCE


def test_units_may_be_chosen_and_lie_in_one_another():
    def units(model):
        return [*model.blocks, model.blocks[0].attention, model.head.norm]

    for weights in launch(trained, *OPTIMIZERS[1], units=units, ranks=3).results:
        assert apart(weights, one_process(*OPTIMIZERS[1])) < TOLERANCE


def test_clipping():
    model = tied_and_frozen()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), 0.5) > 0.5, "nothing was clipped"
        optimizer.step()
    for weights in launch(trained, torch.optim.AdamW, {"lr": 0.01}, clip=0.5, ranks=3).results:
        assert apart(weights, model.state_dict()) < TOLERANCE


@pytest.mark.parametrize("n", [2, 3, 4])
def test_ends_where_fsdp2_ends(n):
    def fn():
        mesh = make_mesh(dp=n)
        ours, theirs = Zero3(build(CONFIG, dtype=torch.float64)), build(CONFIG, dtype=torch.float64)
        for block in theirs.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(theirs, mesh=mesh)
        for model in (ours, theirs):
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            for x, y in text_batches(CONFIG.seq, BATCH, STEPS, rank=dist.get_rank(), world=n):
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()
        return ours.full_state_dict(), {name: t.full_tensor() for name, t in theirs.state_dict().items()}

    for ours, theirs in launch(fn, ranks=n).results:
        assert apart(ours, theirs) < TOLERANCE


def chain(sizes=(7, 7, 7, 7, 7)):
    return nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(sizes)])


@pytest.mark.parametrize(("microbatches", "no_sync"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_sends_what_its_formula_says(n, microbatches, no_sync):
    def fn():
        model = Zero3(chain())
        dist.barrier()
        for i in range(microbatches):
            model._passes.sync = not no_sync or i + 1 == microbatches
            model(torch.ones(2, 7)).sum().backward()

    trace = launch(fn, ranks=n).trace
    expected = formulas.sent_bytes("zero3", formulas.padded([56] * 4, n), n, 4, microbatches, no_sync)
    flags = 1 if no_sync else microbatches
    for rank in range(n):
        spans = trace.of(rank)
        start = max(i for i, s in enumerate(spans) if s.kind == "barrier")
        assert sum(s.sent_bytes for s in spans[start:]) == expected + flags * (2 * (n - 1) * FLAG_BYTES // n)


def test_the_root_is_gathered_once_for_both_passes_and_compute_dtype_halves_the_bytes():
    def fn(compute_dtype):
        model = Zero3(build(CONFIG), compute_dtype=compute_dtype)
        x, y = next(iter(text_batches(CONFIG.seq, 4, 1)))
        dist.barrier()
        loss(model(x), y).backward()
        return [sum(f.layout.used for f in unit.flats) for unit in model.units], model.shards[0].grad.dtype

    for dtype, item_bytes in ((None, 4), (torch.bfloat16, 2)):
        run = launch(fn, dtype, ranks=2)
        sizes, kept_dtype = run[0]
        spans = run.trace.of(0)
        start = max(i for i, s in enumerate(spans) if s.kind == "barrier")
        psi, kept = formulas.padded(sizes, 2), formulas.padded(sizes[-1:], 2)
        expected = formulas.sent_bytes("zero3", psi, 2, item_bytes, kept=kept)
        assert sum(s.sent_bytes for s in spans[start:]) == expected + FLAG_BYTES
        assert kept_dtype == torch.float32


def test_compute_dtype_computes_in_it_and_keeps_the_shards():
    def fn():
        torch.manual_seed(dist.get_rank())
        model = Zero3(chain(), compute_dtype=torch.bfloat16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        whole = model.full_state_dict()
        x = torch.ones(2, 7)
        out = model(x)
        out.float().sum().backward()
        optimizer.step()
        same = chain()
        same.load_state_dict(whole)
        same(x).sum().backward()
        after = model.full_state_dict()
        off = max((after[k] - (whole[k] - 0.1 * p.grad)).abs().max().item() for k, p in same.named_parameters())
        return out.dtype, after["0.weight"].dtype, off

    for dtype, kept, off in launch(fn, ranks=2).results:
        assert (dtype, kept) == (torch.bfloat16, torch.float32)
        assert 0 < off < 0.1 * 2**-5  # gradients of order 1 to 3 bits less than bfloat16's 8


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_at_most_one_and_prefetch_units_are_gathered_and_freed_memory_is_freed(prefetch):
    def fn():
        model = Zero3(build(GPTConfig(seq=8, width=12, heads=2, layers=5)), prefetch=prefetch)
        counts = []

        def count(*_):
            there = [u for u in model.units[:-1] if any(f.whole.untyped_storage().nbytes() for f in u.flats)]
            counts.append(len(there))

        for block in model.module.blocks:
            for layer in (block.attention, block.feed_forward):
                layer.register_forward_hook(count)
                layer.register_full_backward_hook(count)
        x, y = next(iter(text_batches(8, 4, 1)))
        for _ in range(2):
            loss(model(x), y).backward()
        count()
        return counts

    for run in launch(fn, ranks=2).results:
        assert max(run) == 1 + prefetch, "more or fewer units than 1 + prefetch were gathered"
        assert run[-1] == 0 and len(run) == 2 * 5 * 4 + 1


def test_evaluation_keeps_nothing_and_training_goes_on_after_it():
    def fn():
        model = Zero3(build(CONFIG, dtype=torch.float64))
        x, y = next(iter(text_batches(CONFIG.seq, 4, 1)))
        with torch.no_grad():
            first = loss(model(x), y).item()
        held = sum(u.held_bytes for u in model.units)
        loss(model(x), y)  # a forward pass without its backward pass
        out = loss(model(x), y)
        out.backward()
        norms = sum(g.square().sum().item() for g in model.gradient_shards())
        return first, held, out.item(), norms

    for first, held, second, norms in launch(fn, ranks=1).results:
        expected = build(CONFIG, dtype=torch.float64)
        x, y = next(iter(text_batches(CONFIG.seq, 4, 1)))
        loss(expected(x), y).backward()
        assert first == pytest.approx(second) and held == 0
        assert norms == pytest.approx(sum(p.grad.square().sum().item() for p in expected.parameters()))


def test_a_unit_used_twice_and_one_recomputed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            x = self.layers[0](x).tanh()
            x = checkpoint(self.layers[1], x, use_reentrant=False).tanh()
            return self.layers[2](self.layers[0](x)).tanh()

    def fn():
        torch.manual_seed(0)
        plain = Net().double()
        x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4)
        plain(x).sum().backward()
        expected = [p.grad.clone() for p in plain.parameters()]
        model = Zero3(plain)
        for _ in range(2):
            model.zero_grad()
            model(x).sum().backward()
        found = []
        for f in model._flats():
            vector = torch.empty(f.layout.numel, dtype=torch.float64)
            dist.all_gather_into_tensor(vector, f.shard.grad)
            found += f.layout.views(vector)
        return max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))

    assert max(launch(fn, ranks=2).results) < TOLERANCE


def test_unused_parameters_count_as_zeros():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x) if dist.get_rank() or not self.apart else self.unused(x)

    def fn(differ):
        middle = Half()
        middle.apart = differ
        model = Zero3(nn.Sequential(nn.Linear(3, 3), middle, nn.Linear(3, 3)).double())
        model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
        f = model.units[1].flats[0]
        whole = torch.empty(f.layout.numel, dtype=torch.float64)
        dist.all_gather_into_tensor(whole, f.shard.grad)
        used = {slot.name: bool(view.any()) for slot, view in zip(f.layout.slots, f.layout.views(whole), strict=True)}
        return used["1.used.bias"], used["1.unused.bias"], sum(u.held_bytes for u in model.units)

    assert launch(fn, False, ranks=2).results == [(True, False, 0)] * 2
    assert launch(fn, True, ranks=2).results == [(True, True, 0)] * 2  # each rank uses other parameters of the unit


def test_buffers_stay_replicated_and_are_those_of_rank_0():
    def fn():
        norm = nn.BatchNorm1d(3, momentum=0.0)
        model = Zero3(nn.Sequential(nn.Linear(3, 3), norm))
        norm.running_mean.fill_(5.0 + dist.get_rank())
        model(torch.randn(4, 3)).sum().backward()
        return norm.running_mean.unique().tolist(), list(model.full_state_dict())

    run = launch(fn, ranks=2)
    names = list(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).state_dict())
    assert run.results == [([5.0], names)] * 2


def test_sequences_are_cut_per_child_and_the_rest_is_the_root():
    def fn():
        gpt = Zero3(build(CONFIG))
        return [u.name for u in gpt.units], [u.name for u in Zero3(chain()).units], len(list(gpt.parameters()))

    assert launch(fn, ranks=2)[0] == (["blocks.0", "blocks.1", "blocks.2", "root"], ["0", "1", "2", "3"], 4)
