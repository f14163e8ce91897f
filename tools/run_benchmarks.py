"""Runs every benchmark, one after another, since two at once would measure each other.

Run by `make bench`. A benchmark ends with exit code 1 where a figure misses its limit.
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Runs them all; 1 if one failed, 130 on Ctrl-C."""
    paths = sorted((ROOT / "benchmarks").glob("*.py"))
    missed = []
    try:
        for number, path in enumerate(paths, 1):
            print(f"\n== [{number}/{len(paths)}] {path.stem}", flush=True)
            began_s = time.monotonic()
            if subprocess.run([sys.executable, path], cwd=ROOT).returncode:
                missed.append(path.stem)
            print(f"({time.monotonic() - began_s:.0f} s)", flush=True)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    if missed:
        print(f"\nmissed a limit or did not run: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
