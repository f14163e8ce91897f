"""The wheel carries the course: installed in an empty folder, it copies it out, and upgrades overwrite nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT_FROM = ("parallel_lab", "notebooks", "exercises", "solutions", "examples")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the built wheel was installed, with nothing else of the course in reach."""
    place = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        shutil.copytree(REPOSITORY / name, place / "source" / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in FILES:
        shutil.copy(REPOSITORY / name, place / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(place / "source")]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    put = [*pip, "install", "--no-deps", "--no-index", "--no-compile", "--target", str(place / "site"), str(wheel)]
    subprocess.run(put, check=True, capture_output=True)
    return place / "site"


def plab(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """What the installed command does in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    environment.pop("PARALLEL_LAB_PROGRESS", None)
    line = [sys.executable, "-P", "-m", "parallel_lab.cli", *words]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_carries_what_learners_get(installed):
    carried = installed / "parallel_lab" / "_course"
    for folder in BUILT_FROM[1:]:
        there = {file.name for file in (REPOSITORY / folder).rglob("*.ipynb") if "checkpoints" not in str(file)}
        assert there == {file.name for file in (carried / folder).rglob("*.ipynb")}
    assert len(list((carried / "notebooks").iterdir())) >= 24
    scripts = list((installed / "parallel_lab").rglob("*.md"))
    assert scripts and (installed / "parallel_lab" / "course" / "questions" / "E5.md") in scripts


def test_it_starts_in_an_empty_folder_and_is_found_again(installed, tmp_path):
    done = plab(installed, tmp_path, "start", "--no-lab")
    work = tmp_path / "parallel-lab" / "work"
    assert done.returncode == 0, done.stderr
    assert f"The course is in {work}" in done.stdout
    assert (work / "notebooks" / "00_start_here.ipynb").is_file() and (work / "solutions" / "gaps").is_dir()
    assert (work / "parallel_lab" / "cli" / "start.py").is_file(), "the link to the code that notebooks explain"
    comes = plab(installed, work / "notebooks", "next")
    assert comes.returncode == 0 and "plab check" in comes.stdout, comes.stderr
    ran = plab(installed, work / "notebooks", "evidence", "E14")
    assert ran.returncode == 0 and "What a layout asks for" in ran.stdout, ran.stderr
    said = plab(installed, work / "exercises", "progress")
    assert "Nothing solved yet" in said.stdout and "progress.json" in said.stdout


def test_an_upgrade_overwrites_nothing_of_the_learners(installed, tmp_path):
    plab(installed, tmp_path, "start", "mine", "--no-lab")
    mine = tmp_path / "mine" / "work"
    changed, only_run = mine / "exercises" / "02_collectives.ipynb", mine / "exercises" / "03_data_parallel.ipynb"
    notebook = json.loads(changed.read_text())
    notebook["cells"][1]["source"] = "my own work"
    changed.write_text(json.dumps(notebook))
    newer = tmp_path / "newer"
    shutil.copytree(installed, newer)
    for file in (newer / "parallel_lab" / "_course" / "exercises").glob("0[23]_*.ipynb"):
        file.write_text(file.read_text().replace("Exercises 0", "New exercises 0"))
    with open(newer / "parallel_lab" / "_course" / "CHANGELOG.md", "a") as news:
        news.write("- A thing that is new.\n")
    done = plab(newer, mine, "start", "--no-lab")
    assert "A thing that is new." in done.stdout
    assert "02_collectives.ipynb stays as you changed it" in done.stdout, done.stdout + done.stderr
    assert "my own work" in changed.read_text() and "New exercises" in only_run.read_text()
    assert "New exercises" in (mine / "exercises" / "02_collectives.new.ipynb").read_text()


def test_what_cannot_be_is_one_sentence(installed, tmp_path):
    (tmp_path / "file").touch()
    for words in (["start", "file"], ["start", "--port", "none"], ["start", "/proc/none", "--no-lab"], ["update"]):
        done = plab(installed, tmp_path, *words)
        assert done.returncode and "Traceback" not in done.stderr, words
        assert done.stderr.strip().splitlines()[-1].startswith("Error: "), done.stderr
