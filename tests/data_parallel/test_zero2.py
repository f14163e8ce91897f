"""Stage 2 ends where one process ends, overlaps its reduce-scatters with the backward pass, and sends its formula."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.agree.problem import FLAG_BYTES
from parallel_lab.data_parallel import Zero2, clip_grad_norm_, formulas
from parallel_lab.model import GPTConfig, build, loss, train
from parallel_lab.model.data import text_batches

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=2)
BATCH, STEPS = 12, 3
OPTIMIZERS = [(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})]
TOLERANCE = 1e-12  # float64


def tied_and_frozen():
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    model.blocks[1].feed_forward.up.bias.requires_grad_(False)
    return model


def trained(optimizer_class, kwargs, clip=0.0, accumulate=1, no_sync=False, bucket_bytes=5000):
    """Uneven shares count by their size; with `accumulate` each is cut into as many microbatches."""
    n, rank = dist.get_world_size(), dist.get_rank()
    model = Zero2(tied_and_frozen(), optimizer_class, bucket_bytes=bucket_bytes, **kwargs)
    norms = []
    for inputs, targets in text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n):
        model.zero_grad()
        for i, (x, y) in enumerate(zip(inputs.tensor_split(accumulate), targets.tensor_split(accumulate), strict=True)):
            weight = len(x) * n / BATCH
            if no_sync and i + 1 < accumulate:
                with model.no_sync():
                    (loss(model(x), y) * weight).backward()
            else:
                (loss(model(x), y) * weight).backward()
        if clip:
            norms.append(clip_grad_norm_(model, clip).item())
        model.step()
    return {name: value.clone() for name, value in model.module.state_dict().items()}, norms


def one_process(optimizer_class, kwargs):
    return train(tied_and_frozen(), text_batches(CONFIG.seq, BATCH, STEPS), optimizer_class, **kwargs).weights


def apart(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in others)


@pytest.mark.parametrize(("optimizer_class", "kwargs"), OPTIMIZERS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ends_where_one_process_ends(n, optimizer_class, kwargs):
    expected = one_process(optimizer_class, kwargs)
    for weights, _ in launch(trained, optimizer_class, kwargs, ranks=n).results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("no_sync", [False, True])
def test_microbatches_add_up(no_sync):
    expected = one_process(*OPTIMIZERS[1])
    run = launch(trained, *OPTIMIZERS[1], accumulate=3, no_sync=no_sync, ranks=2)
    for weights, _ in run.results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("n", [2, 3])
def test_clipping(n):
    model, norms = tied_and_frozen(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        optimizer.step()
    assert min(norms) > 0.5, "nothing was clipped"
    for weights, found in launch(trained, torch.optim.AdamW, {"lr": 0.01}, clip=0.5, ranks=n).results:
        assert apart(weights, model.state_dict()) < TOLERANCE
        assert found == pytest.approx(norms, rel=1e-12)


def chain():
    return nn.Sequential(*[nn.Linear(7, 7) for _ in range(4)])  # 56 elements each


def one_step(microbatches, no_sync):
    model = Zero2(chain(), torch.optim.SGD, lr=0.1, bucket_bytes=4 * 56)
    dist.barrier()
    for i in range(microbatches):
        model._sync = not no_sync or i + 1 == microbatches
        model(torch.ones(2, 7)).sum().backward()
    model.step()
    return [name for bucket in model.vectors for name in bucket.names]


@pytest.mark.parametrize(("microbatches", "no_sync"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_sends_what_its_formula_says(n, microbatches, no_sync):
    trace = launch(one_step, microbatches, no_sync, ranks=n).trace
    psi = formulas.padded([56] * 4, n)
    flags = 1 + (1 if no_sync else microbatches)
    expected = formulas.sent_bytes("zero2", psi, n, 4, microbatches, no_sync)
    for rank in range(n):
        spans = trace.of(rank)
        start = max(i for i, s in enumerate(spans) if s.kind == "barrier")
        assert sum(s.sent_bytes for s in spans[start:]) == expected + flags * (2 * (n - 1) * FLAG_BYTES // n)


def test_buckets_leave_during_the_backward_pass_in_one_order():
    def fn():
        model = Zero2(chain(), torch.optim.SGD, lr=0.1, bucket_bytes=4 * 56)
        order = []
        for k, layer in enumerate(model.module):
            layer.weight.register_hook(
                lambda _, k=k: order.append((k, sum(b.buffer is not None for b in model.vectors)))
            )
        model(torch.ones(2, 7)).sum().backward()
        return order, [p.grad for p in model.parameters()]

    run = launch(fn, ranks=2)
    order, gradients = run[0]
    assert [k for k, _ in order] == [3, 2, 1, 0]
    assert order[-1][1] > 0, "no bucket was on its way while the first layer's gradient was computed"
    assert gradients == [None] * 8, "the whole gradients are freed"
    kinds = [(s.kind, s.part) for s in run.trace.of(1) if s.kind in ("reduce", "reduce_scatter")]
    assert kinds == [pair for part in range(4) for pair in (("reduce", part), ("reduce_scatter", -1))]


def test_unused_parameters_count_as_zeros_on_every_rank():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x) if dist.get_rank() == 0 else self.b(x)

    def fn():
        model = Zero2(Two().double(), torch.optim.SGD, lr=1.0, bucket_bytes=8)
        before = {k: v.clone() for k, v in model.module.state_dict().items()}
        model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
        model.step()
        return [(before[k] - v).unique().tolist() for k, v in model.module.state_dict().items()]

    for changes in launch(fn, ranks=2).results:
        assert changes == [pytest.approx([0.5])] * 4


def test_buffers_are_those_of_rank_0_in_training():
    def fn():
        norm = nn.BatchNorm1d(3, momentum=0.0)
        model = Zero2(nn.Sequential(nn.Linear(3, 3), norm), torch.optim.SGD, lr=0.1)
        seen = []
        for training in (False, True):
            norm.running_mean.fill_(5.0 + dist.get_rank())
            model.train(training)
            model(torch.randn(4, 3))
            seen.append(norm.running_mean.unique().tolist())
        return seen

    assert launch(fn, ranks=2).results == [[[5.0], [5.0]], [[6.0], [5.0]]]


def test_mixed_dtypes_travel_apart():
    def fn():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3).double(), nn.Linear(3, 3))
        zero = Zero2(model, torch.optim.SGD, lr=0.1)
        (zero.module[0](torch.ones(1, 3).double()).sum() + zero.module[1](torch.ones(1, 3)).sum()).backward()
        zero.step()
        return [bucket.data.dtype for bucket in zero.vectors]

    assert launch(fn, ranks=2)[0] == [torch.float32, torch.float64]
