"""Checks that docstrings have one form, Google's sections, and say what the code says.

Run by `make lint`. pydoclint compares the sections with the signatures, as set in pyproject.toml. It wants all sections
of a docstring or none, and here a section may be left out where the names and the types say it already; so its findings
on absent sections are dropped (ruff's D417 still finds an argument that an `Args:` forgets), and those on absent types,
which are pyright's. What a public function
raises stands under `Raises:` and not in the prose.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("parallel_lab", "tools")
ABSENT = re.compile(r"DOC(101|106|107|201|402)|DOC103(?!.*in the docstring but not in the function signature)")
IN_PROSE = re.compile(r"\bRaises `?[A-Z]\w+|\b[A-Z]\w*(Error|BadSource|Trouble|Wrong)\b`? (if|unless|for|when|where)\b")
DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def against_signatures() -> list[str]:
    """What pydoclint finds, without what it finds absent."""
    command = [sys.executable, "-m", "pydoclint.main", "--quiet", "--show-filenames-in-every-violation-message", "True"]
    done = subprocess.run([*command, *FOLDERS], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode not in (0, 1):
        sys.exit("\n".join(lines))
    return [line.strip() for line in lines if "DOC" in line and not ABSENT.search(line)]


def in_prose(path: Path) -> Iterator[str]:
    """The public functions and classes whose prose says what they raise."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, DOCUMENTED) and not node.name.startswith("_"):
            prose = re.split(r"^Raises:$", ast.get_docstring(node) or "", flags=re.MULTILINE)[0]
            if found := IN_PROSE.search(prose):
                yield f"{path}:{node.lineno}: {node.name} says '{found[0]}' in its prose: write a section `Raises:`"


def main() -> int:
    """Prints what was found; returns the exit code."""
    found = against_signatures()
    found += [said for folder in FOLDERS for path in sorted(Path(folder).rglob("*.py")) for said in in_prose(path)]
    print("\n".join([*found, f"{len(found)} docstrings to mend"]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
