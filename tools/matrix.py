"""Runs the tests of ranks with both ends of the range of torch: the oldest that pyproject.toml allows, and the pinned.

Run by `make matrix`; `make matrix ONLY=data_parallel` runs one room. The oldest goes into `build/torch-VERSION`,
beside what the lock pins; on Linux pip brings its build for CUDA, some 3 GB, once.
"""

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ("runtime", "collectives", "data_parallel", "techniques")


def oldest(pyproject: str) -> str:
    """The lowest torch that the ranges allow, as pip names it."""
    found = re.search(r'"torch>=([\d.]+)"', pyproject)
    assert found, "pyproject.toml bounds torch from below"
    return ".".join([*found[1].split("."), "0", "0"][:3])


def unpinned(locks: list[str], version: str) -> list[str]:
    """The pins of the lock files with another torch; what torch itself asks for is left to it."""
    names = [line for text in locks for line in text.splitlines() if line and line[0] not in "#-"]
    kept = [line for line in names if not line.startswith(("torch==", "setuptools==", "sympy=="))]
    return [f"torch=={version}", *kept]


def install(version: str) -> Path:
    """The Python of an environment with torch `version`, made where it is missing."""
    home = ROOT / "build" / f"torch-{version}"
    python = home / "bin" / "python"
    if not (home / "done").exists():
        venv.create(home, with_pip=True, clear=True)
        locks = [(ROOT / f"requirements{end}.lock").read_text(encoding="utf-8") for end in ("", "-dev")]
        wanted = home / "requirements.txt"
        wanted.write_text("\n".join(unpinned(locks, version)), encoding="utf-8")
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", wanted], check=True)
        (home / "done").touch()
    return python


def main(rooms: list[str]) -> int:
    """Runs the rooms with each end; returns the exit code."""
    folders = [f"tests/{room}" for room in rooms or DEFAULT]
    version, failed = oldest((ROOT / "pyproject.toml").read_text(encoding="utf-8")), False
    try:
        for python in (install(version), Path(sys.executable)):
            name = "import torch; print('\\n== torch', torch.__version__, flush=True)"
            subprocess.run([python, "-c", name], cwd=ROOT, check=True)
            failed |= bool(subprocess.run([python, "-m", "pytest", "-q", "-n", "2", *folders], cwd=ROOT).returncode)
    except subprocess.CalledProcessError as error:
        print(f"{error}; is the registry reached?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
