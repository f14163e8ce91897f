"""The lock files, the environment for conda and pyproject.toml agree; the package keeps its floors."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from parallel_lab import launch
from parallel_lab.course.chapters import TITLES

ROOT = Path(__file__).resolve().parents[1]
CORE, DEV, STORAGE, CUDA = (ROOT / f"requirements{which}.lock" for which in ("", "-dev", "-storage", "-cuda"))
CONDA = ROOT / "environment.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ROW = re.compile(r"^\| (\d\d) \| (?:\[(.+?)\]\((\S+)\)|([^|]+?)) \|.*\| (ready|not written yet) \|$", re.MULTILINE)
NOT_IN_A_RANK = ("matplotlib", "ipywidgets", "anywidget", "sklearn", "jupyterlab", "IPython")


def lines_of(lock: Path) -> list[str]:
    lines = (line.strip() for line in lock.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-r ", "-c "))]


def pins(lock: Path) -> dict[str, str]:
    """Name to version; every line must pin exactly one version."""
    found = {}
    for line in lines_of(lock):
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version and not requirement.url, line
        assert canonicalize_name(requirement.name) not in found, f"{line}: twice"
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


def declared() -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    return [Requirement(text) for text in texts]


def test_torch_is_pinned():
    assert pins(CORE)["torch"] == "2.13.0"


def test_what_the_lab_needs_is_in_the_core_lock_and_in_range():
    locked = pins(CORE)
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_what_the_tests_need_is_in_a_lock_and_in_range():
    locked = pins(CORE) | pins(DEV) | pins(STORAGE)
    for requirement in declared():
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_the_other_locks_include_the_core_lock_and_repeat_nothing_of_it():
    assert "-r requirements.lock" in DEV.read_text().splitlines()
    assert "-c requirements-cuda.lock" in CORE.read_text().splitlines()
    assert not pins(CORE).keys() & pins(DEV).keys()
    assert "-r requirements.lock" in STORAGE.read_text().splitlines()
    assert not pins(CORE).keys() & pins(STORAGE).keys()
    assert all(pins(DEV).get(name, version) == version for name, version in pins(STORAGE).items())


def test_every_indirect_dependency_is_pinned():
    locked = pins(CORE) | pins(DEV) | pins(STORAGE) | pins(CUDA)
    for name in locked:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        for requirement in map(Requirement, needs):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in locked, f"{name} needs {requirement}"


def test_every_pin_serves_the_first_python_that_we_promise():
    locked = pins(CORE) | pins(DEV) | pins(STORAGE)
    installed = {canonicalize_name(one.name): one for one in importlib.metadata.distributions()}
    for name in locked.keys() & installed.keys():
        if installed[name].version.split("+")[0] == locked[name]:
            served = installed[name].metadata.get("Requires-Python") or ""
            assert "3.11.0" in SpecifierSet(served), f"{name} {locked[name]} serves {served}"


def test_conda_has_the_pins_of_the_core_lock():
    environment = yaml.safe_load(CONDA.read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert environment["channels"] == ["conda-forge"]
    assert "python=3.11" in environment["dependencies"]
    assert pip == ["-c requirements-cuda.lock", *lines_of(CORE), "-e ."]


@pytest.mark.parametrize("file", [CORE, DEV, STORAGE, CUDA, CONDA], ids=lambda path: path.name)
def test_no_host_is_named(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"://|\s@\s|--(index|extra|find|trusted)|\.(org|com|io)\b", text)


def test_importing_the_face_is_light():
    code = "import sys, json, parallel_lab; parallel_lab.launch; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(NOT_IN_A_RANK) & set(json.loads(done.stdout))


def test_a_rank_loads_neither_pictures_nor_widgets():
    run = launch(lambda: [name for name in NOT_IN_A_RANK if name in sys.modules], ranks=2)
    assert run.results == [[], []]


def test_imports_go_down_and_stand_at_the_top():
    """import-linter holds the floors; ruff refuses an import inside a function and a check of TYPE_CHECKING."""
    bin = Path(sys.executable).parent
    for command in ([bin / "lint-imports", "--no-cache"], [bin / "ruff", "check", "--select", "PLC0415,TID251"]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_says_which_chapters_are_there():
    rows = ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {number: linked or plain for number, linked, _, plain, _ in rows} == TITLES
    for number, _, link, _, state in rows:
        written = [f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob(f"{number}_*.ipynb")]
        assert ([link], "ready") == (written, state) if written else (link, state) == ("", "not written yet")


def test_the_tree_in_contributing_names_every_folder():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = [path for path in (ROOT / "parallel_lab").iterdir() if (path / "__init__.py").is_file()]
    assert not [path.name for path in folders if f"  {path.name}/ " not in text]
