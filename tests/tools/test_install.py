"""The installer: what it shows while pip works, and the one line for what goes wrong."""

import runpy
from pathlib import Path

import pytest

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "install.py"))
steps, explain, names_in, create = TOOL["steps"], TOOL["explain"], TOOL["names_in"], TOOL["create"]


def test_a_lock_that_includes_another_counts_both(tmp_path):
    (tmp_path / "a.lock").write_text("# head\nnumpy==2.0\ntorch==2.13.0\n")
    (tmp_path / "b.lock").write_text('-r a.lock\nappnope==1.0; platform_system == "Darwin"\n')
    assert names_in(tmp_path / "b.lock") == ["numpy", "torch", "appnope"]


def test_steps_count_each_package_once():
    lines = [
        "Collecting numpy==2.0 (from -r requirements.lock (line 3))",
        "  Downloading numpy-2.0-cp311-cp311-linux.whl (20.1 kB)",
        "Collecting numpy>=1 (from scipy)",
        "Requirement already satisfied: pip in here",
        "  Downloading torch-2.13.0-cp311-linux.whl (526.6 MB)",
        "Installing collected packages: numpy, pip",
    ]
    assert list(steps(lines, 3)) == [
        "[  1/3] numpy",
        "[  1/3] numpy",
        "[  2/3] pip",
        "[  2/3] torch, 526.6 MB",
        "[3/3] unpacking",
    ]


@pytest.mark.parametrize(
    "said, shown",
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError'", "registry cannot be reached"),
        ("noise\nERROR: No matching distribution found for torch==9\nmore", "No matching distribution found for torch"),
        ("", "no reason was given"),
    ],
)
def test_trouble_is_one_line(said, shown, tmp_path):
    line = explain(said.splitlines(), tmp_path / ".venv")
    assert shown in line
    assert "\n" not in line


def test_a_broken_environment_is_named(tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    with pytest.raises(TOOL["InstallError"], match="make clean"):
        create(tmp_path / ".venv")
