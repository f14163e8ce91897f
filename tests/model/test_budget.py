"""The budget of large models: published parameter counts, bytes, hours."""

import subprocess
import sys

import pytest
import torch

from parallel_lab.model import GPT, budget, parameter_count
from parallel_lab.model.budget import Shape

PUBLISHED = {  # total and active parameters, from the model cards and papers
    "LLAMA2_7B": (6_738_415_616, None),
    "LLAMA2_70B": (68_976_648_192, None),
    "LLAMA3_8B": (8_030_261_248, None),
    "LLAMA3_70B": (70_553_706_496, None),
    "LLAMA3_405B": (405_853_388_800, None),
    "MIXTRAL_8X7B": (46_702_792_704, 12.9e9),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_were_published(name):
    shape = getattr(budget, name)
    total, active = PUBLISHED[name]
    assert shape.parameters == total
    assert shape.active_parameters == pytest.approx(active or total, rel=0.01)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("LLAMA")])
def test_the_llamas_are_built_from_the_options_of_the_gpt(name):
    shape = getattr(budget, name)
    with torch.device("meta"):
        model = GPT(shape)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(shape) == PUBLISHED[name][0]


def test_mixtral_is_built_from_the_options_of_the_gpt():
    with torch.device("meta"):
        model = GPT(budget.MIXTRAL_8X7B)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED["MIXTRAL_8X7B"][0]


def test_the_budget_is_counted_without_torch():
    code = (
        "import sys; from parallel_lab.model.budget import LLAMA2_7B;"
        "LLAMA2_7B.parameters; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_experts_cost_memory_and_only_the_active_ones_arithmetic():
    dense = Shape(layers=4, width=256, heads=4, hidden=512, vocab=1000)
    sparse = Shape(layers=4, width=256, heads=4, hidden=512, vocab=1000, experts=8, active_experts=1)
    assert sparse.parameters - dense.parameters == 4 * (7 * dense.expert_parameters + 8 * 256)
    assert sparse.matmul_parameters - dense.matmul_parameters == 4 * 8 * 256  # the router


def test_flops_count_the_square_or_what_a_causal_mask_leaves():
    shape = budget.LLAMA3_8B
    linear = 6 * shape.matmul_parameters
    square, causal = (shape.flops_per_token(8192, causal) - linear for causal in (False, True))
    assert square == 12 * 32 * 4096 * 8192
    assert causal / square == pytest.approx(8193 / 16384)
    assert shape.matmul_parameters == shape.parameters - 128_256 * 4096 - 65 * 4096


def test_a_shape_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="does not divide into 4 heads"):
        Shape(layers=1, width=10, heads=4, hidden=10, vocab=10)
    with pytest.raises(ValueError, match="active experts"):
        Shape(layers=1, width=8, heads=4, hidden=10, vocab=10, experts=2, active_experts=3)


def test_grouped_queries_shrink_the_cache():
    assert budget.LLAMA2_7B.kv_bytes_per_token() == 524_288
    assert budget.LLAMA2_70B.kv_bytes_per_token() == 327_680
    assert budget.LLAMA2_70B.kv_bytes_per_token(1) == 163_840


def test_bytes_of_adam_are_those_of_megatrons_guide():
    kinds = ("float32", "mixed", "main gradients", "copied gradients")
    assert [sum(budget.LAYOUTS[kind]) for kind in kinds] == [16, 16, 18, 20]


def test_activations_of_gpt3_are_korthikantis():
    """Section 4.1: for GPT-3, 5 a s / h is 80, so recomputing attention's core saves 70 %."""
    whole, selective, full = (
        budget.layer_activation_bytes(12_288, 96, 2048, 1, recompute) for recompute in ("none", "selective", "full")
    )
    assert 1 - selective / whole == pytest.approx(0.70, abs=0.01)
    assert full * 17 == selective


def test_recomputation_in_flops():
    assert budget.recomputed_flops(6.0, 0.6, "none") == 6.0
    assert budget.recomputed_flops(6.0, 0.6, "selective") == pytest.approx(6.2)
    assert budget.recomputed_flops(6.0, 0.6, "full") == pytest.approx(8.0)


def test_hours_days_and_utilization_are_one_relation():
    flops = budget.training_flops(70e9, 15e12)
    hours = budget.gpu_hours(flops, 989e12, 0.4)
    assert hours == pytest.approx(4.42e6, rel=0.01)
    assert budget.training_days(flops, 1024, 989e12, 0.4) * 1024 * 24 == pytest.approx(hours)
    assert budget.training_days(flops, 1024, 989e12, 0.4, goodput=0.9) * 1024 * 24 * 0.9 == pytest.approx(hours)
    assert budget.implied_mfu(flops, hours, 989e12) == pytest.approx(0.4)
    tokens_per_s = 15e12 / (hours * 3600)  # of one GPU
    assert budget.utilization(6 * 70e9, tokens_per_s * 8, 8, 989e12) == pytest.approx(0.4)


def test_failures():
    assert budget.save_interval_s(60, 11_136) == pytest.approx(1156, abs=1)
    assert budget.some_of(1000, 0.001) == pytest.approx(1 - 0.999**1000)
    assert budget.some_of(1, 0.25) == pytest.approx(0.25)
