"""The training command on this machine's device: a GPU where there is one, else the CPU."""

import re

import pytest
import torch

from parallel_lab import launch
from parallel_lab.hybrid.train import main

SMALL = "--layers 2 --heads 4 --width 64 --seq 32 --batch 8 --log-every 1 --lr 0.01".split()  # noqa: SIM905


def shown(device, folder, line, ranks=1):
    run = launch(main, [*SMALL, "--out", str(folder), *line.split()], ranks=ranks, device=device)
    assert run.results == [0] * ranks
    return run.output[0]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trains_and_goes_on_bit_by_bit(device, dtype, tmp_path):
    line = f"--dtype {dtype} --dropout 0.1 --steps"
    whole = shown(device, tmp_path / "a", f"{line} 6")
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", whole)]
    assert f"{dtype} on {device}" in whole and losses[-1] < losses[0] - 0.3
    shown(device, tmp_path / "b", f"{line} 3")
    again = shown(device, tmp_path / "b", f"{line} 6")
    assert whole.split("weights ")[1] == again.split("weights ")[1]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_layout_in_bfloat16_follows_one_rank(device, tmp_path):
    line = "--dtype bfloat16 --steps 3"
    found, expected = (
        [float(loss) for loss in re.findall(r"loss (\S+)", shown(device, tmp_path / name, f"{line} {axes}", ranks))]
        for name, axes, ranks in (("a", "--pp 2 --tp 2", 4), ("b", "", 1))
    )
    assert found == pytest.approx(expected, abs=0.03)  # bfloat16 has 8 bits, and sums in another order


@pytest.mark.gpu
def test_mfu_is_shown_where_the_card_is_known(tmp_path):
    text = shown("cuda", tmp_path, "--dtype bfloat16 --steps 3")
    name = torch.cuda.get_device_name()
    assert ("MFU" in text) == any(card in name.replace("-", " ").split() for card in ("H100", "H200", "A100"))
