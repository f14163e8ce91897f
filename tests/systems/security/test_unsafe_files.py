"""A checkpoint that runs code runs it under trust, and under no other loader; what scanners say of the same files."""

import pickle
import zipfile
from contextlib import nullcontext

import pytest
import torch
from fickling.analysis import Severity, check_safety
from fickling.fickle import Pickled
from picklescan.scanner import scan_file_path

from parallel_lab.systems.security import Unsafe
from parallel_lab.systems.security import unsafe_files as files

WEIGHTS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2, dtype=torch.bfloat16)}
KINDS = [files.Planted, files.Opened]


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.mark.parametrize("kind", KINDS)
def test_trust_runs_the_code_and_the_other_loaders_do_not(tmp_path, marker, kind):
    path = tmp_path / "step7.pt"
    files.plant(path, WEIGHTS, marker, kind)
    with pytest.raises(Unsafe, match="is not allowed"):
        files.load_weights(path)
    with pytest.raises(Unsafe, match=r"step7\.pt"):
        files.load_tensors(path)
    assert files.not_allowed(path) and not marker.exists(), "to refuse and to look runs nothing"
    with pytest.warns(ResourceWarning) if kind is files.Opened else nullcontext():
        assert torch.equal(files.load_trusting(path)["model"]["weight"], WEIGHTS["weight"])
    assert marker.exists()


def test_what_is_only_weights_passes_everywhere(tmp_path):
    torch.save(WEIGHTS, tmp_path / "good.pt")
    files.save_tensors(tmp_path / "good.safetensors", WEIGHTS)
    assert files.not_allowed(tmp_path / "good.pt") == []
    for loaded in (files.load_weights(tmp_path / "good.pt"), files.load_tensors(tmp_path / "good.safetensors")):
        assert all(
            torch.equal(loaded[name], each) and loaded[name].dtype == each.dtype for name, each in WEIGHTS.items()
        )


def test_scanners_disagree(tmp_path, marker):
    """picklescan has a list of forbidden names, without `io.open`; fickling allows so little that weights fail too."""
    verdicts = {}
    for kind in KINDS:
        files.plant(tmp_path / "bad.pt", WEIGHTS, marker, kind)
        verdicts[kind] = scan_file_path(str(tmp_path / "bad.pt")).infected_files
        assert _fickling(tmp_path / "bad.pt") >= Severity.LIKELY_OVERTLY_MALICIOUS
    torch.save(WEIGHTS, tmp_path / "good.pt")
    assert verdicts == {files.Planted: 1, files.Opened: 0} and not marker.exists()
    assert scan_file_path(str(tmp_path / "good.pt")).infected_files == 0
    assert _fickling(tmp_path / "good.pt") == Severity.LIKELY_UNSAFE


def _fickling(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".pkl"))
        return check_safety(Pickled.load(archive.read(name))).severity


def test_names_that_cannot_be_known_are_not_allowed(tmp_path, marker):
    path = tmp_path / "newer.pt"
    torch.save(files.Planted(marker), path, pickle_protocol=4)
    assert files.not_allowed(path) == ["?"] and not marker.exists()
    path.write_bytes(pickle.dumps(WEIGHTS))
    with pytest.raises(Unsafe, match="no archive"):
        files.names_in(path)
