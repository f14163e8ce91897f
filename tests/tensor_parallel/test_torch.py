"""Against PyTorch's own tensor parallelism with its best plan: loss, gradients and bytes; where torch's works.

It works where n divides heads, sequence and vocabulary. Dropout, label smoothing and uneven sequences it has not.
"""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from shared_tp import GPT2, apart, whole_gradients, whole_model
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import loss_parallel, parallelize_module

from parallel_lab import launch
from parallel_lab.model import loss
from parallel_lab.runtime import make_mesh
from parallel_lab.tensor_parallel import sum_replicated_gradients, tensor_parallel, vocab_cross_entropy
from parallel_lab.trace import recorder

CONFIG = dataclasses.replace(GPT2, tied=False, positions="rotary")  # torch's plan unties, and has no learned positions
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "tensor_parallel.py"


@pytest.fixture
def best_plan():
    """The plan that the benchmark compares with, which ranks get by value: its module has no name."""
    spec = importlib.util.spec_from_file_location("tensor_parallel_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.best_plan


@pytest.mark.parametrize(("ranks", "sequence"), [(2, False), (2, True), (4, True)])
def test_the_step_of_torch_s_best_plan(best_plan, ranks, sequence):
    """Float64, to 1e-12; sequence parallelism sends the sum of replicated gradients beside what torch sends by then."""

    def torch_s(tokens):
        model = whole_model(CONFIG)
        parallelize_module(model, make_mesh(tp=ranks), best_plan(sequence, CONFIG.layers))
        before = len(recorder().spans)
        with loss_parallel():
            value = loss(model(tokens), tokens)
            value.backward()
        sent = sum(s.sent_bytes for s in recorder().spans[before:])
        grads = {name: p.grad for name, p in model.named_parameters()}
        whole = lambda g: g.redistribute(placements=[Replicate()]).to_local() if hasattr(g, "redistribute") else g  # noqa: E731
        return value, {name: whole(g) for name, g in grads.items()}, sent

    def ours(tokens):
        model = tensor_parallel(whole_model(CONFIG), sequence=sequence)
        before = len(recorder().spans)
        value = vocab_cross_entropy(model(tokens), tokens, vocab=CONFIG.vocab)
        value.backward()
        sent = sum(s.sent_bytes for s in recorder().spans[before:])
        sum_replicated_gradients(model)
        return value, whole_gradients(model, dist.group.WORLD), sent

    def fn():
        tokens = torch.arange(3 * CONFIG.seq).view(3, -1)
        (mine, my_gradients, my_bytes), (value, gradients, sent) = ours(tokens), torch_s(tokens)
        return (mine - value).abs().item(), apart(my_gradients, gradients), my_bytes, sent

    for off, off_gradients, my_bytes, sent in launch(fn, ranks=ranks, timeout=120).results:
        assert off < 1e-12 and off_gradients < 1e-12
        assert my_bytes <= sent
