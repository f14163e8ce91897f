"""Bytes held: each storage once, by kind, and less when something is freed."""

import gc

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from parallel_lab.model import GPTConfig, build, loss, parameter_count
from parallel_lab.trace import Recorder, Trace, install
from parallel_lab.trace.memory import SavedTensors, held_bytes, live_bytes, sample, storages, track

CONFIG = GPTConfig(seq=16, width=32)
PARAMETERS = 4 * parameter_count(CONFIG)


@pytest.fixture
def keeper():
    old = install(Recorder(rank=1))
    new = install(old)
    install(new)
    yield new
    install(old)


def trained(model, optimizer):
    tokens = torch.zeros(2, CONFIG.seq, dtype=torch.int64)
    loss(model(tokens), tokens).backward()
    optimizer.step()


def test_model_states_by_kind():
    model = build(CONFIG)
    optimizer = torch.optim.Adam(model.parameters())
    assert held_bytes(model, optimizer) == {"parameters": PARAMETERS, "gradients": 0, "optimizer_state": 0}
    trained(model, optimizer)
    steps = 4 * len(list(model.parameters()))  # Adam keeps a step count, one float32, for each parameter
    full = {"parameters": PARAMETERS, "gradients": PARAMETERS, "optimizer_state": 2 * PARAMETERS + steps}
    assert held_bytes(model, optimizer) == full
    optimizer.zero_grad(set_to_none=False)
    assert held_bytes(model, optimizer) == full
    optimizer.zero_grad(set_to_none=True)
    assert held_bytes(model, optimizer) == full | {"gradients": 0}
    assert held_bytes(optimizer=optimizer)["parameters"] == PARAMETERS
    assert sum(held_bytes().values()) == 0


def test_momentum_is_one_copy_and_plain_sgd_none():
    for momentum, copies in ((0.9, 1), (0.0, 0)):
        model = build(CONFIG)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
        trained(model, optimizer)
        assert held_bytes(model, optimizer)["optimizer_state"] == copies * PARAMETERS


def test_tied_weights_count_once():
    tied, untied = build(CONFIG), build(GPTConfig(seq=16, width=32, tied=False))
    more = 4 * CONFIG.vocab * CONFIG.width
    assert held_bytes(untied)["parameters"] - held_bytes(tied)["parameters"] == more


def test_views_count_their_storage_once_and_an_emptied_one_nothing():
    bucket = torch.zeros(100)
    model = nn.Linear(3, 4)
    model.weight.grad, model.bias.grad = bucket[:12].view(4, 3), bucket[12:16]
    assert held_bytes(model)["gradients"] == 400
    bucket.untyped_storage().resize_(0)
    assert held_bytes(model)["gradients"] == 0
    assert storages([None, torch.zeros(5, device="meta")]) == {}


def test_master_copies_are_optimizer_state():
    model = build(CONFIG, dtype=torch.bfloat16)
    masters = [nn.Parameter(p.detach().float()) for p in model.parameters()]
    held = held_bytes(model, torch.optim.SGD(masters, lr=0.1))
    assert held == {"parameters": PARAMETERS // 2, "gradients": 0, "optimizer_state": PARAMETERS}


def test_a_wrapper_counts_what_it_wraps():
    class Wrapper(torch.Tensor):
        @staticmethod
        def __new__(cls, inner):
            return torch.Tensor._make_wrapper_subclass(cls, (1000,))

        def __init__(self, inner):
            self.inner = inner

        def __tensor_flatten__(self):
            return ["inner"], None

        @classmethod
        def __torch_dispatch__(cls, *args, **kwargs):
            raise AssertionError("nothing is computed")

    assert sum(storages([Wrapper(torch.zeros(10))]).values()) == 40


def test_saved_tensors_count_once_without_parameters_and_are_freed():
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 4, bias=False))
    x = torch.randn(5, 8)
    with SavedTensors(model) as saved:
        out = model(x)
    # The first linear saves x, tanh and the second linear save one and the same tensor.
    assert saved.bytes == saved.peak_bytes == 4 * 5 * (8 + 16)
    with SavedTensors() as everything:
        other = model(x)
    assert everything.bytes == saved.bytes + 4 * 16 * 4  # the second weight; the first's input needs no gradient
    out.sum().backward(retain_graph=True)
    assert saved.bytes == 4 * 5 * (8 + 16)
    del out
    assert saved.bytes == 0 and saved.peak_bytes == 4 * 5 * (8 + 16)
    other.sum().backward()
    assert everything.bytes == 0


def test_saved_tensors_do_not_change_the_gradients():
    tokens = torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(0))
    plain, measured = build(CONFIG), build(CONFIG)
    loss(plain(tokens), tokens).backward()
    with SavedTensors(measured):
        mean = loss(measured(tokens), tokens)
    mean.backward()
    for a, b in zip(plain.parameters(), measured.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_measuring_does_not_hide_a_change_in_place():
    x = torch.ones(3, requires_grad=True)
    with SavedTensors():
        y = torch.exp(x)
    y.mul_(2)  # exp saved its output
    with pytest.raises(RuntimeError, match="modified in place"):
        y.sum().backward()


def test_a_checkpointed_part_keeps_its_input():
    block = build(CONFIG).blocks[0]
    x = torch.randn(2, 16, 32, requires_grad=True)
    with SavedTensors(block) as saved:
        out = checkpoint(block, x, use_reentrant=False)
    assert saved.bytes == x.untyped_storage().nbytes()
    out.sum().backward()
    del out
    assert saved.bytes == 0


def test_track_records_memory_over_time(keeper):
    model = build(CONFIG)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model, optimizer) as saved:
        trained(model, optimizer)
        optimizer.zero_grad()
    after = len(keeper.samples)
    trained(model, optimizer)
    assert len(keeper.samples) == after  # the hooks are gone
    by_kind = {
        kind: [s.bytes for s in keeper.samples if s.kind == kind] for kind in ("parameters", "gradients", "activations")
    }
    assert set(by_kind["parameters"]) == {PARAMETERS}
    gradients = by_kind["gradients"]
    assert gradients[0] == 0 and max(gradients) == PARAMETERS and gradients[-1] == 0
    assert sum(gradients[i] < gradients[i + 1] for i in range(len(gradients) - 1)) == len(list(model.parameters()))
    assert max(by_kind["activations"]) == saved.peak_bytes and by_kind["activations"][-1] == 0
    trace = Trace(2, (), tuple(keeper.samples))
    assert PARAMETERS + saved.peak_bytes <= trace.peak_bytes(1) <= 2 * PARAMETERS + saved.peak_bytes
    assert trace.peak_bytes(0) == 0


def test_sample_notes_each_kind_unless_recording_is_off(keeper):
    model = build(CONFIG)
    assert sample(model) == {s.kind: s.bytes for s in keeper.samples}
    assert Trace(2, (), tuple(keeper.samples)).peak_bytes(1) == PARAMETERS
    keeper.enabled = False
    sample(model)
    assert len(keeper.samples) == 3


def test_live_bytes_rises_and_falls():
    before = live_bytes()
    tensor = torch.zeros(1000)
    view = tensor[:10]
    assert live_bytes() - before == 4000
    del tensor
    assert live_bytes() - before == 4000  # the view holds all of it
    layer = nn.Linear(10, 10, bias=False)
    layer(view).sum().backward()
    assert live_bytes() - before == 4000 + 2 * 400  # a gradient that no Python object names is found
    del view, layer
    assert live_bytes() == before


def test_live_bytes_collects_garbage_first():
    before = live_bytes()
    gc.disable()
    try:
        cycle = [torch.zeros(500)]
        cycle.append(cycle)
        del cycle
        assert live_bytes() == before
    finally:
        gc.enable()
