"""The options that a scheme becomes: those of this course parse, schedules exist in torch, and nothing is dropped."""

import json
import re
import shlex
from dataclasses import replace
from itertools import pairwise

import pytest
from torch.distributed.pipelining.schedules import get_schedule_class

from parallel_lab.hybrid import stages
from parallel_lab.hybrid.options import config_of, layout_of, parse
from parallel_lab.planner.flags import (
    TORCH_SCHEDULES,
    all_flags,
    deepspeed,
    hybrid_train,
    megatron,
    runs_on,
    torchtitan,
)
from parallel_lab.planner.models import model
from parallel_lab.planner.scheme import SCHEDULES, TWO_CHUNKS, Scheme

SHAPE = model("llama3-70b")
SCHEME = Scheme(pp=4, dp=16, cp=2, tp=8, zero=1, schedule="interleaved", chunks=2, microbatch=1, recompute="full")
SCHEMES = [
    SCHEME,
    Scheme(dp=8),
    Scheme(dp=16, tp=8, zero=3, shard=4, precision="fp8", recompute="selective", offload="optimizer"),
    Scheme(pp=4, dp=4, zero=2, schedule="zb_h1", precision="fp16"),
    Scheme(pp=2, dp=2, tp=2, schedule="zb_v", precision="fp32", sequence_parallel=False),
]
PARTS_OF_CONTEXT = (Scheme(dp=9, cp=2, tp=8, zero=3, shard=9), Scheme(dp=4, cp=4, zero=3, shard=2))


def command_of(flags):
    """The words of a command over several lines."""
    return shlex.split(flags.text.replace("\\\n", " "))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_this_courses_own_parser_takes_them(scheme):
    words = command_of(hybrid_train(SHAPE, scheme, 512))
    options = parse(words[words.index("parallel_lab.hybrid.train") + 1 :])
    layout = layout_of(options, config_of(options), scheme.world)
    assert [getattr(layout, axis) for axis in ("pp", "dp", "cp", "tp", "ep")] == [
        getattr(scheme, axis) for axis in ("pp", "dp", "cp", "tp", "ep")
    ]
    assert options.microbatches == scheme.microbatches(512)
    assert (options.recompute, options.batch) == (scheme.recompute == "full", 512)


def test_the_course_has_every_schedule_of_a_scheme():
    assert set(SCHEDULES) <= set(stages.SCHEDULES)


def test_with_experts_too():
    scheme = Scheme(dp=8, ep=4, zero=1)
    words = command_of(hybrid_train(model("mixtral-8x7b"), scheme, 64))
    options = parse(words[words.index("parallel_lab.hybrid.train") + 1 :])
    assert (options.experts, options.active_experts, options.ep) == (8, 2, 4)
    assert "--num-experts 8" in megatron(model("mixtral-8x7b"), scheme, 64).text.replace("\\\n   ", "")
    assert "expert_parallel_degree 4" in torchtitan(model("mixtral-8x7b"), scheme, 64).text
    assert any("ep_size=4" in note for note in deepspeed(model("mixtral-8x7b"), scheme, 64).notes)


def test_torch_has_the_schedules_that_torchtitan_is_told():
    for ours, name in TORCH_SCHEDULES.items():
        schedule = get_schedule_class(name)
        assert ("Multi" in str(schedule.__mro__)) == (ours in ("interleaved", *TWO_CHUNKS))
    missing = set(SCHEDULES) - set(TORCH_SCHEDULES)
    for name in missing:
        notes = torchtitan(SHAPE, Scheme(pp=4, schedule=name), 64).notes
        assert any(f"no schedule {name}" in note for note in notes)


@pytest.mark.parametrize("scheme", [*SCHEMES, *PARTS_OF_CONTEXT])
def test_the_degrees_of_torchtitan_make_the_world(scheme):
    said = dict(re.findall(r"--parallelism\.(\w+) (\d+)", torchtitan(SHAPE, scheme, 512).text))
    names = ("data_parallel_replicate", "data_parallel_shard", "tensor_parallel", "context_parallel")
    product = 1
    for name in (*names, "pipeline_parallel"):
        product *= int(said[f"{name}_degree"])
    assert product == scheme.world


@pytest.mark.parametrize("scheme", PARTS_OF_CONTEXT)
def test_torchtitan_has_no_groups_of_some_context_ranks(scheme):
    assert f"no groups of {scheme.shard}" in str(torchtitan(SHAPE, scheme, 512))
    assert not runs_on("torchtitan", scheme) and runs_on("torchtitan", replace(scheme, shard=scheme.cp))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_deepspeeds_file_multiplies_out(scheme):
    config = json.loads(deepspeed(SHAPE, scheme, 512).text)
    parts = config["train_micro_batch_size_per_gpu"] * config["gradient_accumulation_steps"]
    assert config["train_batch_size"] == parts * scheme.dp == 512
    assert config["zero_optimization"]["stage"] == scheme.zero


def test_megatron_says_layout_batch_and_model():
    words = command_of(megatron(SHAPE, SCHEME, 512))
    said = dict(pairwise(words))
    assert [said[f"--{name}-parallel-size"] for name in ("tensor-model", "pipeline-model", "context")] == [
        "8",
        "4",
        "2",
    ]
    assert said["--num-virtual-stages-per-pipeline-rank"] == "2" and said["--recompute-granularity"] == "full"
    assert said["--num-query-groups"] == "8" and said["--global-batch-size"] == "512"
    assert {"--swiglu", "--sequence-parallel", "--use-distributed-optimizer", "--bf16"} <= set(words)
    sharded = megatron(SHAPE, Scheme(dp=16, zero=3, shard=8), 512).text
    assert "optim_grads_params" in sharded and "--num-distributed-optimizer-instances 2" in sharded


def test_what_a_framework_lacks_is_said():
    scheme = Scheme(pp=2, dp=8, cp=2, tp=4, zero=3, shard=8, schedule="zb_h1", recompute="selective", precision="fp8")
    notes = {one.framework: " ".join(one.notes) for one in all_flags(SHAPE, scheme, 64)}
    assert "no schedule zb_h1" in notes["torchtitan"] and "no schedule zb_h1" in notes["Megatron-LM"]
    for word in ("refuses ZeRO-2 and ZeRO-3", "Ulysses", "num_stages=2", "MiCS", "fp8"):
        assert word in notes["DeepSpeed"]
    for word in ("no gated", "everything or nothing", "over all data ranks", "no fp8"):
        assert word in notes["parallel_lab.hybrid.train"]
    two = hybrid_train(SHAPE, replace(scheme, zero=2, shard=None, schedule="interleaved", chunks=4), 64).notes
    assert any("1 stands in the place of 2" in note for note in two) and any("2 chunks" in note for note in two)
    assert str(all_flags(SHAPE, scheme, 64)[0]).count("note:") == len(all_flags(SHAPE, scheme, 64)[0].notes)
