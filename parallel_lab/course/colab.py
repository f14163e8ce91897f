"""The cell at the head of each chapter that installs the course on Google Colab.

    python -m parallel_lab.course.colab --repository ADDRESS   writes the address of your repository into all
    python -m parallel_lab.course.colab                        writes the cell where it is missing; addresses stay

Anywhere else than on Colab the cell does nothing. A chapter that was executed stays executed: the cells behind it count
one more.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ID, ADDRESS = "colab", re.compile(r'^    address = "(.*)"', re.MULTILINE)
SOURCE = """# On Google Colab, this installs the course. Anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    address = "{address}"  # of the repository, as for git clone
    if not address:
        raise SystemExit("write the address of the course's repository between the quotes, and run the cell again")
    get_ipython().run_line_magic("pip", f"install --quiet git+{{address}}")"""
COUNT = re.compile(r"\bIn\s?\[(\d+)\]")


def headed(text: str, address: str | None = None) -> str:
    """The text of a notebook with the cell behind its title; an address that is there stays if none is given."""
    notebook = json.loads(text)
    cells = notebook["cells"]
    there = next((cell for cell in cells if cell["id"] == ID), None)
    if there is None:
        _count_on(cells)
        there = {"cell_type": "code", "execution_count": 1, "id": ID, "outputs": [], "source": []}
        there["metadata"] = {"jupyter": {"source_hidden": True}, "tags": [ID]}
        cells.insert(1, there)
    known = ADDRESS.search("".join(there["source"]))
    source = SOURCE.format(address=(known[1] if known else "") if address is None else address)
    there["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _count_on(cells: list[dict[str, Any]]) -> None:
    """Makes every code cell count one more, in what it shows as well."""
    for cell in cells:
        if cell["cell_type"] == "code" and cell["execution_count"]:
            cell["execution_count"] += 1
            shown = COUNT.sub(
                lambda found: found[0].replace(found[1], str(int(found[1]) + 1)), json.dumps(cell["outputs"])
            )
            cell["outputs"] = json.loads(shown)
            for output in cell["outputs"]:
                if output.get("execution_count"):
                    output["execution_count"] += 1


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser("parallel_lab.course.colab", description="Write Colab's cell into all chapters.")
    parser.add_argument("--repository", help="the address of your repository, as for git clone")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the folder that holds notebooks/")
    options = parser.parse_args(arguments)
    if options.repository and not re.fullmatch(r"[\w+]+://[^\s\"'{}]+", options.repository):
        print(f"{options.repository!r} is no address that pip can read: it begins with a protocol", file=sys.stderr)
        return 1
    for file in sorted((options.root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        text = file.read_text(encoding="utf-8")
        if (new := headed(text, options.repository)) != text:
            file.write_text(new, encoding="utf-8")
            print(f"wrote {file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
