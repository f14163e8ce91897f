"""Days, energy, carbon and money of a training are the products that reports publish."""

import dataclasses

import pytest

from parallel_lab.planner import Run, cluster, model

LLAMA = model("llama1-65b")
A100 = dataclasses.replace(cluster("a100-selene", gpus=2048), usd_per_gpu_hour=2.0)


def llama(**changed):
    """LLaMA 65B as its table 15 has it: 1,022,362 GPU hours for 1.4 T tokens."""
    step_s = 1_022_362 / 2048 * 3600 / (1.4e12 / (2048 * LLAMA.seq))
    return Run(LLAMA, A100, batch=2048, step_s=step_s, tokens=1.4e12, **changed)


def test_llamas_table_comes_out():
    run = llama()
    assert run.gpu_hours == pytest.approx(1_022_362)
    assert run.days.value == pytest.approx(20.8, abs=0.05)
    assert run.kwh.value / 1e3 == pytest.approx(449.8, abs=0.1)  # MWh, published 449
    assert run.tco2.value == pytest.approx(173, abs=0.5)
    assert run.usd.value == pytest.approx(2 * 1_022_362)


def test_deepseeks_bill_comes_out():
    """Table 1 of its report: 2.664 M hours of pre-training at 2 USD."""
    deepseek = model("deepseek-v3")
    step_s = 2.664e6 / 2048 * 3600 / (14.8e12 / (15360 * deepseek.seq))
    run = Run(deepseek, cluster("h800-ib"), batch=15360, step_s=step_s, tokens=14.8e12)
    assert run.usd.value == pytest.approx(5.328e6)


def test_goodput_makes_it_longer():
    assert llama(goodput=0.5).days.value == pytest.approx(2 * llama().days.value)
    assert "steps x step / goodput" in llama().days.tree()
    assert "TDP" in llama().tco2.tree()


@pytest.mark.parametrize(("name", "value"), [("batch", 0), ("step_s", -1.0), ("tokens", 0), ("goodput", 0.0)])
def test_numbers_are_positive(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: expected more than 0"):
        dataclasses.replace(llama(), **{name: value})
    with pytest.raises(ValueError, match="at most 1"):
        llama(goodput=1.5)
