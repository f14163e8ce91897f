"""A scheme refuses what cannot be trained, in a sentence; clusters and models are those of the tables."""

import dataclasses

import pytest

from parallel_lab.model import budget
from parallel_lab.model.formulas import flops_per_token, parameter_count
from parallel_lab.planner import Scheme, accelerators, cluster, clusters, faster, matrices, model, models
from parallel_lab.planner.models import attention_flops, has_experts

LLAMA = model("llama3-70b")
PARAMETERS = {  # as published
    "llama3-405b": 405_853_388_800, "llama3-70b": 70_553_706_496, "mpt-7b": 6_658_859_008, "mpt-70b": 64_862_437_376,
    "mixtral-8x7b": 46.7e9, "deepseek-v3": 671e9, "deepseek-v2": 236e9, "palm-540b": 540.35e9, "bloom-176b": 176.247e9,
    "qwen3-235b-a22b": 235e9, "ernie-4.5-300b-a47b": 300e9, "megatron-1t": 1008e9, "pangu-alpha-200b": 207e9,
}  # fmt: skip
ACTIVE = {"deepseek-v3": 37e9, "mixtral-8x7b": 12.9e9, "qwen3-235b-a22b": 22e9, "ernie-4.5-300b-a47b": 47e9}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tp": 0}, "tp=0: expected at least 1"),
        ({"zero": 4}, "zero=4: expected one of 0, 1, 2, 3"),
        ({"ep": 3, "dp": 4}, "ep=3 does not divide the dp x cp = 4 data ranks"),
        ({"shard": 3, "dp": 4}, "shard=3 does not divide"),
        ({"chunks": 2}, "only interleaved takes chunks"),
        ({"schedule": "interleaved", "pp": 2}, "interleaved needs 2 chunks or more"),
        ({"recompute": "some"}, "recompute='some': expected one of none, selective, full"),
    ],
)
def test_choices_that_exclude_each_other(wrong, message):
    with pytest.raises(ValueError, match=message):
        Scheme(**wrong)


def test_sizes_are_whole_numbers():
    with pytest.raises(TypeError, match=r"tp=2.0: expected a whole number"):
        Scheme(tp=2.0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("scheme", "batch", "message"),
    [
        (Scheme(dp=512), 512, "makes 512 ranks, and h100-ib has 1024"),
        (Scheme(dp=64, tp=16), 63, "does not divide into dp=64"),
        (Scheme(dp=4, pp=128, tp=2), 1024, "80 layers and two tables do not fill 128 stages"),
        (Scheme(dp=128, tp=8, ep=2), 1024, "a model without experts, and ep=2"),
        (Scheme(dp=16, pp=8, tp=8, schedule="interleaved", chunks=2), 16 * 12, "groups of pp=8, and there are 12"),
    ],
)
def test_what_a_model_a_cluster_or_a_batch_cannot_have(scheme, batch, message):
    with pytest.raises(ValueError, match=message):
        scheme.check(LLAMA, cluster("h100-ib", gpus=1024), batch)
    assert not scheme.fits_in(LLAMA, cluster("h100-ib", gpus=1024), batch)


def test_a_context_of_odd_parts_and_a_precision_that_the_chip_lacks():
    with pytest.raises(ValueError, match="does not divide into 2 cp = 6 parts"):
        Scheme(cp=3).check(LLAMA, None, 1)
    with pytest.raises(ValueError, match="64 heads do not divide by tp=24"):
        Scheme(tp=24).check(LLAMA, None, 1)
    with pytest.raises(ValueError, match="V100-32 has no bf16 products; it has fp32, fp16"):
        Scheme().check(LLAMA, cluster("v100-dgx2h", gpus=1), 1)
    assert Scheme(precision="fp16").fits_in(LLAMA, cluster("v100-dgx2h", gpus=1), 1)


def test_what_follows_from_a_scheme():
    scheme = Scheme(pp=2, dp=4, cp=2, tp=2, schedule="interleaved", chunks=5, microbatch=2, shard=4)
    assert (scheme.world, scheme.data, scheme.sharded, scheme.stages_each) == (32, 8, 4, 5)
    assert scheme.microbatches(64) == 8
    assert Scheme(pp=2, schedule="zb_v").stages_each == 2


@pytest.mark.parametrize("name", models())
def test_models_of_the_table_have_their_published_sizes(name):
    found = model(name)
    assert found.source and found.name == name
    assert found.parameters == pytest.approx(PARAMETERS.get(name, found.parameters), rel=0.005)
    assert found.active_parameters == pytest.approx(ACTIVE.get(name, found.active_parameters), rel=0.03)


@pytest.mark.parametrize("shape", [budget.LLAMA3_70B, budget.MIXTRAL_8X7B, budget.LLAMA2_7B])
def test_a_plain_shape_is_counted_as_the_course_counts_it(shape):
    name = {budget.LLAMA3_70B: "llama3-70b", budget.MIXTRAL_8X7B: "mixtral-8x7b"}.get(shape, "llama2-7b")
    found = model(name)
    assert found.parameters == parameter_count(shape) == shape.parameters
    assert found.active_parameters == shape.active_parameters
    assert found.flops_per_token(shape.seq) == flops_per_token(shape)
    assert found.flops_per_token(shape.seq, causal=True) == flops_per_token(shape, causal=True)
    assert found.kv_bytes_per_token() == shape.kv_bytes_per_token()


def test_latent_attention_and_dense_layers_before_experts():
    deepseek = model("deepseek-v3")
    assert [m.name for m in matrices(deepseek)][:3] == ["query down", "query up", "key value down"]
    assert not has_experts(deepseek, 2) and has_experts(deepseek, 3)
    assert sum(m.flops for m in matrices(deepseek, 3) if m.part == "experts") == 2 * 8 * 3 * 7168 * 2048
    assert attention_flops(deepseek, 1) == 2 * 128 * (192 + 128)
    assert deepseek.kv_bytes_per_token() == 61 * (512 + 64) * 2
    assert model("llama3-8b", seq=4096).seq == 4096
    lite = dataclasses.replace(deepseek, latent=deepseek.latent._replace(query=0) if deepseek.latent else None)
    assert matrices(lite)[0][:3] == ("query up", 7168, 128 * 192)


def test_clusters_of_the_table_have_sources():
    assert all(cluster(name).source and cluster(name).fast.bytes_per_s > 0 for name in clusters())
    assert {cluster(name).accelerator.name for name in clusters()} <= set(accelerators())
    one = cluster("h100-ib", gpus=20)
    assert (one.gpus, one.nodes, one.memory_bytes) == (20, 3, 80 * 2**30)


def test_a_faster_cluster():
    one = cluster("h100-ib")
    two = faster(one, network=2, inside=3, memory=0.5, flops=4)
    assert two.slow.bytes_per_s == 2 * one.slow.bytes_per_s and two.fast.bytes_per_s == 3 * one.fast.bytes_per_s
    assert two.memory_bytes == 40 * 2**30 and two.accelerator.peak_flops_per_s() == 4 * 989e12


@pytest.mark.parametrize(("find", "name"), [(model, "lama3-70b"), (cluster, "h100")])
def test_near_names_are_offered(find, name):
    with pytest.raises(ValueError, match="did you mean"):
        find(name)
    with pytest.raises(ValueError, match=f"no {find.__name__} '___'"):
        find("___")
