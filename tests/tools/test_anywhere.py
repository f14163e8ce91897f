"""Binder, Codespaces, containers, conda: the files name what is there, and what can be built here is built."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES = {"docker": ["docker", "info"], "podman": ["podman", "info"]}
CONDA = next(filter(None, map(shutil.which, ("micromamba", "mamba", "conda"))), None)


def working_engine() -> str | None:
    """The name of an engine that can build images here."""
    for name, probe in ENGINES.items():
        if shutil.which(name) and subprocess.run(probe, capture_output=True).returncode == 0:
            return name
    return None


def test_the_container_copies_files_that_exist():
    lines = (ROOT / "Containerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert not [line for line in lines if line.startswith("FROM") and "/" in line], "no registry is named"


def test_codespaces_builds_that_container_and_forwards_the_lab():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / settings["build"]["dockerfile"]).resolve() == ROOT / "Containerfile"
    assert settings["forwardPorts"] == [8888]


def test_binder_installs_the_pins_and_then_the_course():
    assert "-r ../requirements.lock" in (ROOT / ".binder" / "requirements.txt").read_text().splitlines()
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.timeout(3600)
def test_the_container_builds_and_starts(tmp_path):
    engine = working_engine()
    if engine is None:
        pytest.skip("no container engine that works here (docker or podman)")
    built = subprocess.run([engine, "build", "--quiet", "--file", "Containerfile", "."], cwd=ROOT, capture_output=True)
    assert built.returncode == 0, built.stderr.decode()[-2000:]
    image = built.stdout.decode().split()[-1]
    done = subprocess.run([engine, "run", "--rm", image, "plab", "doctor"], capture_output=True, text=True)
    assert "2 real ranks agreed" in done.stdout, done.stdout + done.stderr


@pytest.mark.timeout(3600)
def test_conda_really_creates_the_environment(tmp_path):
    if CONDA is None:
        pytest.skip("no conda, mamba or micromamba here")
    place = tmp_path / "env"
    made = [CONDA, "env", "create", "--yes", "--prefix", str(place), "--file", "environment.yml"]
    done = subprocess.run(made, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    said = subprocess.run([place / "bin" / "plab", "doctor"], capture_output=True, text=True)
    assert "2 real ranks agreed" in said.stdout, said.stdout + said.stderr
