"""Stage 3 sends what its formula says, gathers in the compute dtype before use, and frees after it."""

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.agree.problem import FLAG_BYTES
from parallel_lab.data_parallel import Zero3, formulas
from parallel_lab.model import GPTConfig, build, loss
from parallel_lab.model.data import text_batches

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=3)


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
