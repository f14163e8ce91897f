"""Creates the virtual environment and installs a lock file into it, with one line of progress.

Run by make: PYTHON tools/install.py .venv requirements.lock

Standard library only, as nothing else is there yet. What goes wrong ends in one line and exit code 1; what pip said
stands in `install.log` in the environment.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# A CPU build takes 2 GB, and pip unpacks beside it; a build for CUDA takes more, and pip says so when it does not fit.
LEAST_FREE_BYTES = 3 * 10**9
COUNTED = re.compile(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)")
LARGE = re.compile(r"(?:Downloading|Using cached) ([\w.]+)-\S+ \((\d{3,}\.?\d* MB|.* GB)\)")


class InstallError(Exception):
    """What the reader can put right, in one line."""


def python_of(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / "bin" / "python"


def create(venv: Path) -> None:
    """Makes the environment, unless one is there that works.

    Raises:
        InstallError: one is there that does not work, or none can be made.
    """
    python = python_of(venv)
    if venv.exists() and any(venv.iterdir()):
        probe = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            well = subprocess.run([python, "-c", probe], capture_output=True).returncode == 0
        except OSError:
            well = False
        if not well:
            raise InstallError(f"{venv} has no working Python 3.11 or later: run make clean, then again")
        return
    made = subprocess.run([sys.executable, "-m", "venv", venv], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        raise InstallError(explain((made.stdout + made.stderr).splitlines(), venv))


def check_disk(venv: Path) -> None:
    """Checks that there is room for the environment.

    Raises:
        InstallError: there is too little.
    """
    free_bytes = shutil.disk_usage(venv.parent).free
    if free_bytes < LEAST_FREE_BYTES:
        raise InstallError(
            f"the disk is too full: {free_bytes / 1e9:.1f} GB are free at {venv.parent.resolve()}, "
            f"{LEAST_FREE_BYTES / 1e9:.0f} GB are needed"
        )


def names_in(lock: Path) -> list[str]:
    """The packages that a lock file pins, with those of the lock files that it includes."""
    names = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            names += names_in(lock.parent / line.removeprefix("-r ").strip())
        elif "==" in line and not line.startswith("#"):
            names.append(line.split("==")[0])
    return names


def steps(lines: Iterable[str], total: int) -> Iterator[str]:
    """What to show for the lines that pip prints: how many of `total` packages it has dealt with, and which."""
    seen: set[str] = set()
    for line in lines:
        if found := COUNTED.match(line):
            seen.add(found[1].lower())
            yield f"[{min(len(seen), total):>3}/{total}] {found[1]}"
        elif found := LARGE.match(line.strip()):
            yield f"[{min(len(seen), total):>3}/{total}] {found[1]}, {found[2]}"
        elif line.startswith("Installing collected packages"):
            yield f"[{total}/{total}] unpacking"


def explain(lines: list[str], venv: Path) -> str:
    """One line for what made pip or venv fail."""
    text = "\n".join(lines)
    if "No space left on device" in text or "Errno 28" in text:
        places = {str(venv.parent.resolve()), tempfile.gettempdir()}
        free = ", ".join(f"{shutil.disk_usage(place).free / 1e9:.1f} GB free at {place}" for place in sorted(places))
        return f"the disk is full ({free}): make room, then run the same command again"
    if "NewConnectionError" in text or "Temporary failure in name resolution" in text:
        return "the package registry cannot be reached: check the network, then run the same command again"
    errors = [line for line in lines if line.startswith("ERROR:")] or [line for line in lines if line.strip()]
    return f"the installation failed: {errors[-1].removeprefix('ERROR:').strip() if errors else 'no reason was given'}"


def pip(venv: Path, arguments: list[str], total: int) -> None:
    """Runs pip, shows where it is, and keeps what it says in a log.

    Raises:
        InstallError: pip failed.
    """
    command = [python_of(venv), "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar=off", *arguments]
    lines = []
    with (
        (venv / "install.log").open("a", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout
        for shown in steps(_kept(process.stdout, lines, log), total):
            if sys.stdout.isatty():
                print(f"\r\033[K{shown}", end="", flush=True)
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    if process.returncode:
        raise InstallError(f"{explain(lines, venv)} (all of it: {venv / 'install.log'})")


def _kept(source: Iterable[str], lines: list[str], log) -> Iterator[str]:
    for line in source:
        lines.append(line.rstrip("\n"))
        log.write(line)
        yield line


def install(venv: Path, lock: Path) -> None:
    """Brings `venv` to what `lock` says, and this package with it, editable."""
    if not python_of(venv).exists():
        check_disk(venv)
    create(venv)
    (venv / "install.log").write_text("")
    total = len(names_in(lock))
    began_s = time.monotonic()
    print(f"Installing {total} packages into {venv}; the first time this takes some minutes.", flush=True)
    pip(venv, ["-r", os.fspath(lock)], total)
    # The lock has setuptools, so that building this package fetches nothing that is not pinned.
    pip(venv, ["--no-deps", "--no-build-isolation", "-e", os.fspath(lock.parent)], 1)
    print(f"Installed in {time.monotonic() - began_s:.0f} s.", flush=True)


def main() -> int:
    """The command; returns the exit code."""
    try:
        install(Path(sys.argv[1]), Path(sys.argv[2]))
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(explain([str(error)], Path(sys.argv[1])), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
