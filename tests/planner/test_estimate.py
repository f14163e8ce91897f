"""An estimate adds up, equals its simulated trace, says why, and moves the right way when the cluster does."""

from dataclasses import replace

import pytest

from parallel_lab.planner import Constants, Scheme, cluster, constants, estimate, faster, matrices, model
from parallel_lab.planner.constants import BOUNDS
from parallel_lab.planner.stages import part

LLAMA = model("llama3-70b")
H100 = cluster("h100-ib", gpus=64)
SCHEMES = [
    Scheme(pp=1, dp=8, tp=8, zero=1),
    Scheme(pp=4, dp=2, tp=8, recompute="full"),
    Scheme(pp=4, dp=2, tp=8, schedule="interleaved", chunks=5),
    Scheme(pp=4, dp=2, tp=8, schedule="gpipe", sequence_parallel=False),
    Scheme(pp=4, dp=2, tp=8, schedule="dualpipe_v"),
    Scheme(dp=64, zero=3, states="fsdp", recompute="full"),
    Scheme(dp=64, zero=3, shard=8, states="fsdp", recompute="full"),
    Scheme(dp=8, cp=2, tp=4, zero=2, recompute="selective", attention="unfused"),
    Scheme(dp=8, tp=8, zero=1, offload="optimizer", precision="fp8"),
    Scheme(pp=2, dp=4, tp=8, states="deepspeed", precision="fp16"),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("overlap", [True, False])
def test_adds_up_and_is_simulated(scheme, overlap):
    found = estimate(LLAMA, H100, scheme, 128, overlap=overlap)
    assert found.step.value == pytest.approx(found.step_s)
    assert all(part.value >= 0 for part in found.step)
    assert found.trace.duration_s == pytest.approx(found.step_s, rel=0.005)
    assert 0.1 < found.mfu <= found.hfu < 0.8
    assert found.memory.value > 0
    assert found.fits == (found.memory.value < H100.memory_bytes - 1.5e9)


def test_zero_bubble_has_no_barrier():
    """Its trace shows one step; in a row of steps what counts is a rank's own window, which is never longer."""
    found = estimate(LLAMA, H100, Scheme(pp=8, tp=8, schedule="zb_h2"), 128)
    one = estimate(LLAMA, H100, Scheme(pp=8, tp=8), 128)
    assert found.step_s <= found.trace.duration_s < one.step_s


def test_why():
    found = estimate(LLAMA, H100, SCHEMES[1], 128)
    tree = found.why()
    assert "products" in tree and "bubble" in tree and "constants.yaml" in tree
    assert found.why("weights").startswith("weights")
    assert "share of the peak" in found.why("products") and "bandwidth of the ring" in found.why("tensor")
    exposed = estimate(LLAMA, H100, SCHEMES[1], 128, overlap=False)
    assert "bandwidth of the ring" in exposed.why("gradient sum")
    assert found.why("mfu").count("\n") == 4
    with pytest.raises(KeyError, match="bubble"):
        found.why("nothing")


def test_refuses():
    with pytest.raises(ValueError, match="64"):
        estimate(LLAMA, H100, Scheme(dp=8, tp=4), 128)
    assert estimate(LLAMA, H100, Scheme(dp=8, tp=4), 128, check=False).step_s > 0


def test_what_follows():
    found = estimate(LLAMA, H100, SCHEMES[0], 128)
    tokens = 128 * LLAMA.seq
    assert found.tokens_per_s == tokens / found.step_s
    assert found.mfu == pytest.approx(found.model_flops / (found.step_s * 64 * 989e12))
    assert found.days(1e12) == pytest.approx(1e12 / found.tokens_per_s / 86_400)
    hours = found.days(1e12) * 24 * 64
    assert found.kwh(1e12) == pytest.approx(hours * 0.7 * H100.pue)
    assert found.usd(1e12) == pytest.approx(hours * H100.usd_per_gpu_hour)


@pytest.mark.parametrize(
    ("scheme", "part"),
    [
        (Scheme(dp=8, tp=8), "tensor"),
        (Scheme(dp=64, zero=3, states="fsdp"), "weights"),
        (Scheme(pp=8, tp=8), "bubble"),
        (Scheme(cp=8, tp=8), "context"),
        (Scheme(pp=8, dp=2, tp=4), "tables"),
    ],
)
def test_a_slower_network_costs_where_it_is_used(scheme, part):
    tied = replace(LLAMA, tied=True)
    slow = faster(H100, network=0.02, inside=0.02)
    one, other = (estimate(tied, where, scheme, 64) for where in (H100, slow))
    assert other.step.get(part) + other.step.get("gathered weights") > one.step.get(part)
    assert other.step.get("products") == one.step.get("products")


def test_experts_exchange():
    mixtral = model("mixtral-8x7b", seq=4096)
    found = estimate(mixtral, H100, Scheme(dp=64, ep=8, zero=1), 64)
    assert found.step.get("experts") > 0
    assert found.trace.duration_s == pytest.approx(found.step_s)


@pytest.mark.parametrize(("ep", "zero"), [(1, 0), (8, 0), (8, 1), (4, 2)])
def test_experts_that_are_cut_are_summed_only_over_their_copies(ep, zero):
    """In a node of 8, by hand: a ring of the dense numbers over all, one of a rank's experts over every ep-th."""
    node, mixtral = cluster("h100-ib", gpus=8), model("mixtral-8x7b", seq=4096)
    scheme, copies = Scheme(dp=8, ep=ep, zero=zero), 8 // ep
    found, own = estimate(mixtral, node, scheme, 64, overlap=False), part(mixtral, scheme, 0).numbers
    dense_bytes, expert_bytes = 4 * own.dense, 4 * own.experts
    ways = (2, 1, 0)[zero]  # stage 2 scatters inside the passes
    bandwidth = 450e9 * constants().fast_share
    summed_s = ways * (7 / 8 * dense_bytes + (copies - 1) / copies * expert_bytes) / bandwidth
    assert found.step.get("gradient sum") == pytest.approx(summed_s, abs=1e-4)
    updated = own.dense / (8 if zero else 1) + own.experts / (copies if zero else 1)
    written_s = 40 * updated / (constants().memory_share * 3.35e12)
    assert found.step.get("optimizer") == pytest.approx(written_s)
    gathered_s = (7 / 8 * 2 * own.dense + (copies - 1) / copies * 2 * own.experts) / bandwidth if zero else 0.0
    assert found.step.get("gathered weights") == pytest.approx(gathered_s, abs=1e-4)


def test_one_gpu_by_hand():
    """Products alone: FLOPs over the share of the peak, and the bytes of three matrices over the memory's bandwidth."""
    shape, alone = model("gpt3-2.7b"), cluster("h100-ib", gpus=1)
    found, some, tokens = estimate(shape, alone, Scheme(), 4), constants(), shape.seq
    of_layer_s = sum(
        2 * tokens * one.inputs * one.outputs / (some.product_share * 989e12)
        + 2 * (tokens * one.inputs + one.inputs * one.outputs + tokens * one.outputs) / (some.memory_share * 3.35e12)
        for one in matrices(shape)
    )
    assert found.step.get("products") == pytest.approx(4 * 3 * shape.layers * of_layer_s)
    for name in ("tensor", "bubble", "gradient sum", "weights", "gathered weights"):
        assert found.step.get(name) == 0
    assert found.memory.get("optimizer") == pytest.approx(12 * shape.parameters, rel=1e-3)


def test_other_constants():
    slow = estimate(LLAMA, H100, SCHEMES[0], 128, constants=constants().but(product_share=0.4))
    assert slow.step_s > 1.4 * estimate(LLAMA, H100, SCHEMES[0], 128).step_s


def test_constants_are_in_their_bounds():
    assert list(Constants().values()) == list(BOUNDS)
    for name, value in constants().values().items():
        assert BOUNDS[name].low <= value <= BOUNDS[name].high, name
