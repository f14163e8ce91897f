"""Writes requirements.lock, requirements-dev.lock and environment.yml from what is installed.

Run by `make lock`, in a fresh environment that has this package with its extras and nothing else. The lock files name
versions only; what is needed on another platform alone gets a marker.
"""

import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "parallel-lab"
# Installing this package itself, editable, takes these; see tools/install.py.
ALSO = ("setuptools",)
SYSTEMS = {"linux": "Linux", "darwin": "Darwin"}
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
HEADER = "# Written by `make lock` from pyproject.toml, with Python {python}. Do not edit.\n# {what}\n"
ENVIRONMENT = "name: parallel-lab\nchannels:\n  - conda-forge\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n"


def environments() -> list[dict[str, str]]:
    """What markers are tested against: each system with each version of Python."""
    return [
        {"sys_platform": short, "platform_system": long, "python_version": version, "os_name": "posix"}
        | {"python_full_version": f"{version}.0", "implementation_name": "cpython"}
        for short, long in SYSTEMS.items()
        for version in VERSIONS
    ]


def wanted(requirement: Requirement, extras: set[str]) -> set[str]:
    """The systems on which a package that was asked for with `extras` needs `requirement`."""
    return {
        one["platform_system"]
        for one in environments()
        if requirement.marker is None
        or any(requirement.marker.evaluate({**one, "extra": extra}) for extra in extras or {""})
    }


def closure(name: str, extras: set[str], found: dict[str, set[str]] | None = None) -> dict[str, set[str]]:
    """Every package that `name` needs, however indirectly, with the systems that need it."""
    found = {} if found is None else found
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        systems = wanted(requirement, extras)
        child = canonicalize_name(requirement.name)
        if not systems or (child in found and systems <= found[child] and not requirement.extras):
            continue
        found[child] = found.get(child, set()) | systems
        closure(child, requirement.extras, found)
    return found


def pin(name: str, systems: set[str]) -> str:
    """The line of the lock file; the part of a version that names a local build (`+cpu`) is left out."""
    try:
        version = importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{name} is needed on {', '.join(systems)}: name it where the Makefile installs for `make lock`")
    marker = "" if systems == set(SYSTEMS.values()) else f'; platform_system == "{systems.copy().pop()}"'
    return f"{name}=={version}{marker}"


def write(name: str, text: str) -> None:
    """Writes a file at the top of the repository and says so."""
    (ROOT / name).write_text(text, encoding="utf-8")
    print(f"wrote {name}")


def main() -> None:
    """Writes the three files."""
    core = closure(PROJECT, set()) | {name: set(SYSTEMS.values()) for name in ALSO}
    everything = closure(PROJECT, {"", "dev", "browser"})
    pins = [pin(name, core[name]) for name in sorted(core)]
    more = [pin(name, everything[name]) for name in sorted(everything.keys() - core.keys())]
    python = ".".join(map(str, sys.version_info[:2]))
    head = HEADER.format(python=python, what="What the course needs to run.")
    write("requirements.lock", head + "\n".join(pins) + "\n")
    head = HEADER.format(python=python, what="What its tests and tools need besides.")
    write("requirements-dev.lock", head + "-r requirements.lock\n" + "\n".join(more) + "\n")
    head = HEADER.format(python=python, what="For conda users: the pins of requirements.lock.")
    lines = [f"      - {one}" if ";" not in one else f"      - '{one}'" for one in pins]
    write("environment.yml", head + ENVIRONMENT + "\n".join(lines) + "\n      - -e .\n")


if __name__ == "__main__":
    main()
