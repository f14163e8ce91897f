"""Writes the lock files (core, dev, one an extra, CUDA) and environment.yml from what is installed.

Run by `make lock`, in a fresh environment that has this package with its extras and nothing else. The lock files name
versions only; what is needed on another platform alone gets a marker. The libraries of CUDA stand in a file of their
own, as constraints, because only some builds of torch ask for them.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "parallel-lab"
# Installing this package itself, editable, takes these; see tools/install.py.
ALSO = ("setuptools",)
SYSTEMS = {"linux": "Linux", "darwin": "Darwin"}
LOWEST = (3, 11)
EARLIEST = "3.11.0"  # pip takes what the Python at hand can have, and some packages ask for a later 3.11
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
HEADER = "# Written by `make lock` from pyproject.toml. Do not edit.\n# {what}\n"
CUDA = re.compile(r"nvidia-|cuda-|triton$")
EXTRAS = {
    "storage": "What the servers of chapter 17 need besides.",
    "energy": "What the tools that report energy need besides.",
    "model": "What reads the small language model of chapter 22 needs besides.",
    "classes": "What a teacher's tools need besides.",
    "book": "What builds the web book needs besides.",
}
ENVIRONMENT = "name: parallel-lab\nchannels:\n  - conda-forge\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n"


def environments() -> list[dict[str, str]]:
    """What markers are tested against: each system with each version of Python."""
    return [
        {"sys_platform": short, "platform_system": long, "python_version": version, "os_name": "posix"}
        | {"python_full_version": f"{version}.0", "implementation_name": "cpython"}
        for short, long in SYSTEMS.items()
        for version in VERSIONS
    ]


def wanted(requirement: Requirement, extras: frozenset[str]) -> set[str]:
    """The systems on which a package that was asked for with `extras` needs `requirement`."""
    return {
        one["platform_system"]
        for one in environments()
        if requirement.marker is None
        or any(requirement.marker.evaluate({**one, "extra": extra}) for extra in extras or ("",))
    }


def requirements_of(name: str) -> list[Requirement]:
    """What a package asks for; nothing where it is not installed, which `pin` reports."""
    try:
        return [Requirement(text) for text in importlib.metadata.requires(name) or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def closure(name: str, extras: set[str]) -> dict[str, set[str]]:
    """Every package that `name` needs, however indirectly, with the systems that need it."""
    found: dict[str, set[str]] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(name, frozenset(extras))]
    while todo:
        parent = todo.pop()
        if parent in seen:
            continue
        seen.add(parent)
        for requirement in requirements_of(parent[0]):
            if systems := wanted(requirement, parent[1]):
                child = canonicalize_name(requirement.name)
                found[child] = found.get(child, set()) | systems
                todo.append((child, frozenset(requirement.extras)))
    return found


def pin(name: str, systems: set[str]) -> str:
    """The line of the lock file; the part of a version that names a local build (`+cpu`) is left out."""
    try:
        version = importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{name} is needed on {', '.join(systems)}: name it where the Makefile installs for `make lock`")
    about = importlib.metadata.metadata(name).json
    if EARLIEST not in SpecifierSet(str(about.get("requires_python", ""))):
        sys.exit(f"{name} {version} does not serve Python {EARLIEST}: bound it in the Makefile, or use an earlier 3.11")
    marker = "" if systems == set(SYSTEMS.values()) else f'; platform_system == "{systems.copy().pop()}"'
    return f"{name}=={version}{marker}"


def pins(packages: dict[str, set[str]]) -> list[str]:
    """The lines of a lock file, by name."""
    return [pin(name, packages[name]) for name in sorted(packages)]


def write(name: str, what: str, text: str) -> None:
    """Writes a file at the top of the repository and says so."""
    (ROOT / name).write_text(HEADER.format(what=what) + text, encoding="utf-8")
    print(f"wrote {name}")


def main() -> None:
    """Writes the files."""
    if sys.version_info[:2] != LOWEST:
        sys.exit("make lock wants Python 3.11, the lowest that is served: some packages are needed by that alone")
    everywhere = set(SYSTEMS.values())
    needed = closure(PROJECT, {""}) | dict.fromkeys(ALSO, everywhere)
    cuda = {name: {"Linux"} for name in needed if CUDA.match(name)}
    core = {name: systems for name, systems in needed.items() if name not in cuda}
    dev = {name: systems for name, systems in closure(PROJECT, {"", "dev", "browser"}).items() if name not in needed}
    lines = ["-c requirements-cuda.lock", *pins(core)]
    write("requirements.lock", "What the course needs to run.", "\n".join(lines) + "\n")
    more = ["-r requirements.lock", *pins(dev)]
    write("requirements-dev.lock", "What its tests and tools need besides.", "\n".join(more) + "\n")
    for extra, what in EXTRAS.items():
        optional = {name: systems for name, systems in closure(PROJECT, {"", extra}).items() if name not in needed}
        more = ["-r requirements.lock", *pins(optional)]
        write(f"requirements-{extra}.lock", what, "\n".join(more) + "\n")
    quoted = [f"'{line}'" if ";" in line else line for line in [*lines, "-e ."]]
    listed = "".join(f"      - {line}\n" for line in quoted)
    write("environment.yml", "For conda users: the pins of requirements.lock.", ENVIRONMENT + listed)
    if cuda:
        text = "\n".join(line.split(";")[0] for line in pins(cuda)) + "\n"
        write("requirements-cuda.lock", "Constraints: what a build of torch for CUDA brings along.", text)
    else:
        print("requirements-cuda.lock stays as it is: this build of torch is not for CUDA")


if __name__ == "__main__":
    main()
