"""Decoding on a GPU: the tokens of the CPU, on one rank, on ranks that share a model, and on ranks apart."""

import pytest
import torch.distributed as dist
from shared_serving import LLAMA, PLAIN, model, prompts, recomputed, requests

from parallel_lab import launch
from parallel_lab.systems.serving import Decoder, generate, serve_apart
from parallel_lab.tensor_parallel import tensor_parallel

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("config", [PLAIN, LLAMA], ids=["plain", "llama"])
def test_a_gpu_writes_what_the_cpu_writes(config):
    answers = generate(Decoder(model(config).cuda(), slots=5), prompts(config), tokens=12)
    assert answers == [recomputed(model(config), prompt, 12) for prompt in prompts(config)]


def together():
    group = dist.group.WORLD
    decoder = Decoder(tensor_parallel(model(PLAIN).cuda(), group=group), slots=5, group=group)
    return generate(decoder, prompts(PLAIN), tokens=8)


def apart():
    return serve_apart(model(LLAMA).cuda(), requests(LLAMA, 6), prefill=1, slots=2)


def test_ranks_on_a_gpu():
    expected = [recomputed(model(PLAIN), prompt, 8) for prompt in prompts(PLAIN)]
    assert launch(together, ranks=2, device="cuda").results == [expected] * 2
    answers = launch(apart, ranks=2, device="cuda")[1]
    whole = model(LLAMA)
    assert answers == {i: recomputed(whole, r.prompt, r.new_tokens) for i, r in enumerate(requests(LLAMA, 6))}
