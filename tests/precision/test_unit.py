"""What multiplies here is named from what the machine says of itself; a product is timed, and no time is asserted."""

import runpy
from pathlib import Path

import pytest
import torch

from parallel_lab.precision import unit as machine
from parallel_lab.precision.unit import product_s, unit

SAID = {
    "model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_bf16 sse\n": ("AMD EPYC", ("avx512_bf16",)),
    "processor\t: 0\nFeatures\t: fp asimd fphp asimdhp bf16\n": ("a CPU", ("bf16", "fphp", "asimdhp")),
    "": ("a CPU", ()),
}


@pytest.mark.parametrize("said", SAID, ids=("x86", "arm", "silent"))
def test_a_cpu_is_named_with_its_instructions(said, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(said)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    found = unit()
    assert (found.name, found.instructions) == SAID[said]
    assert found.vectors == torch.backends.cpu.get_cpu_capability()
    assert str(found).endswith("for 16 bits: " + (", ".join(SAID[said][1]) or "no instructions that it names"))


def test_a_product_takes_time():
    for dtype in (torch.float32, torch.bfloat16):
        assert product_s(dtype, 8, times=2) > 0


def test_the_benchmark_runs(monkeypatch, capsys):
    """In this process, with one small model; its figures are nobody's business here."""
    path = Path(__file__).parents[2] / "benchmarks" / "precision.py"
    benchmark = runpy.run_path(str(path))
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", [str(path), "--small", "--turns", "2", "--steps", "1", "--batch", "1"])
    try:
        assert benchmark["main"]() == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert str(unit()) in printed and "in bfloat16 is" in printed


@pytest.mark.gpu
def test_a_gpu_is_named_with_its_tensor_cores():
    found = unit("cuda")
    assert found.name == torch.cuda.get_device_name() and found.instructions
    assert product_s(torch.float16, 64, device="cuda") > 0
