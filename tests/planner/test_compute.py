"""What an accelerator computes: efficiency by shape, counted bytes, recomputation, the pace of the host."""

from dataclasses import replace

import pytest

from parallel_lab.planner import Constants, Scheme, accelerator, model
from parallel_lab.planner.compute import elementwise_bytes, head_s, layer, paced_s, product_s

CHIP = accelerator("A100-80")
CONSTANTS = Constants()
GPT = model("megatron-18b")
UNFUSED = Scheme(attention="unfused", sequence_parallel=False)


def share(m, k, n):
    return 2 * m * k * n / product_s(m, k, n, 312e12, CHIP, CONSTANTS) / 312e12


def test_efficiency_depends_on_the_shape():
    large = share(2**20, 2**16, 2**16)
    assert large == pytest.approx(CONSTANTS.product_share, rel=0.01)
    cut = [share(2048, 12_288, 12_288 // tp) for tp in (1, 2, 4, 8)]
    assert cut == sorted(cut, reverse=True)
    assert cut[-1] < 0.95 * cut[0]


def test_a_layer_is_its_products():
    work = layer(GPT, UNFUSED, CHIP, CONSTANTS)
    flops = 2048 * 24 * 6144**2
    assert work.products_s == pytest.approx(flops / (CONSTANTS.product_share * 312e12), rel=0.15)
    assert work.forward_s == work.products_s + work.attention_s + work.elementwise_s
    assert work.weight_s == work.products_s
    halved = layer(GPT, replace(UNFUSED, tp=2), CHIP, CONSTANTS)
    assert work.products_s / 2 < halved.products_s < 0.6 * work.products_s


def test_counted_bytes():
    """22 h of what is repeated, 12 h and 16 h of what is cut, in bytes per token; sequences shared cut all of it."""
    dropout = replace(GPT, dropout=0.1)
    h = GPT.width
    assert elementwise_bytes(dropout, UNFUSED, 1) == (22 + 12 + 16) * h
    assert elementwise_bytes(dropout, replace(UNFUSED, tp=4), 1) == (22 + 28 / 4) * h
    assert elementwise_bytes(GPT, Scheme(tp=4), 1) == (20 + 28) / 4 * h


def test_attention():
    fused, unfused = (layer(GPT, Scheme(attention=kind), CHIP, CONSTANTS) for kind in ("fused", "unfused"))
    assert fused.scores_s == 0 < unfused.scores_s
    odd = layer(replace(GPT, heads=40, width=6000), UNFUSED, CHIP, CONSTANTS)  # heads of 150
    even = layer(replace(GPT, heads=40, width=6080), UNFUSED, CHIP, CONSTANTS)  # of 152
    assert odd.attention_s > 10 * even.attention_s


def test_recomputation():
    work = layer(GPT, UNFUSED, CHIP, CONSTANTS)
    again = {kind: work.again_s(replace(UNFUSED, recompute=kind)) for kind in ("none", "selective", "full")}
    assert again["none"] == 0
    assert again["selective"] == work.attention_s + work.scores_s
    assert again["full"] == work.forward_s
    # PyTorch's own stops before the last product of a layer, whose output nobody keeps.
    assert work.again_s(Scheme(recompute="full", states="fsdp")) == work.forward_s - work.last_s


def test_the_pace_of_the_host():
    assert paced_s(0, 1, 3, CONSTANTS) == pytest.approx(CONSTANTS.host_s / 3)
    assert paced_s(10, 3, 3, CONSTANTS) == pytest.approx(10)


def test_experts_and_heads():
    mixtral = model("mixtral-8x7b")
    one, cut = (layer(mixtral, Scheme(dp=8, ep=ep), CHIP, CONSTANTS) for ep in (1, 8))
    assert cut.products_s < one.products_s  # eight times the rows for one expert: the same FLOPs, fewer weights to read
    llama = model("llama3-8b")
    assert head_s(llama, Scheme(tp=8), CHIP, CONSTANTS) < head_s(llama, Scheme(), CHIP, CONSTANTS) / 6
