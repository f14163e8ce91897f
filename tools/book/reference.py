"""The reference of the package: one page a room, written from its docstrings by griffe2md, nothing imported."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import griffe
import griffe2md

from tools.book.pages import ROOT, Page, escaped

PACKAGE = "parallel_lab"
LAYOUT = {
    "heading_level": 2,
    "show_submodules": False,
    "show_if_no_docstring": False,
    "inherited_members": False,
    "members_order": "source",
    "summary": False,
    "line_length": 100,
}
_TYPED = re.compile(r"<code>(.*?)</code>", re.DOTALL)
_NAME = re.compile(r"\[(\*{0,2}[\w.]+\*{0,2})\]\(#([\w.]+)\)")


@cache
def package() -> Any:
    """The package as griffe reads it."""
    options: Any = {"warnings": False}
    loader = griffe.GriffeLoader(
        search_paths=[str(ROOT)], docstring_parser="google", docstring_options=options, allow_inspection=False
    )
    found = loader.load(PACKAGE)
    loader.resolve_aliases(external=False)
    return found


def rooms(module: Any = None) -> Iterator[Any]:
    """The package and the packages in it, depth first; each is a page."""
    module = module or package()
    yield module
    for name in sorted(module.modules):
        below = module.modules[name]
        if not below.is_alias and (below.is_package or below.is_subpackage):
            yield from rooms(below)


def modules(room: Any) -> list[Any]:
    """The room itself and its modules, without its rooms."""
    below = (one for _, one in sorted(room.modules.items()) if not one.is_alias)
    return [room, *(one for one in below if not (one.is_package or one.is_subpackage))]


def place(room: Any) -> str:
    """The path of a room's page."""
    return f"reference/{room.path}"


def reference_pages(source: Callable[[str], str]) -> Iterator[Page]:
    """A page for each room of the package.

    Args:
        source: the address of a file of the repository.
    """
    shown = ((room, one) for room in rooms() for module in modules(room) for one in _objects(module))
    where = {one.path: place(room) for room, one in shown if not re.search(r"\._", one.path)}
    template = griffe2md.prepare_env()
    for room in rooms():
        parts = [_below(room), *(_module(module, template, where, source) for module in modules(room))]
        yield Page(place(room), "reference", room.path, origin=f"{PACKAGE}/__init__.py", text="\n\n".join(parts))


def _below(room: Any) -> str:
    """Links to the rooms below a room."""
    links = [f"[`{one.path}`](book:{place(one)}.html)" for one in rooms(room) if one is not room]
    return f"Rooms: {', '.join(links)}." if links else ""


def _objects(module: Any) -> Iterator[Any]:
    """A module, its classes and functions, and the methods of its classes."""
    yield module
    for member in module.members.values():
        if not member.is_alias and (member.is_class or member.is_function):
            yield member
            if member.is_class:
                yield from (one for one in member.members.values() if not one.is_alias and one.is_function)


def _module(module: Any, template: Any, where: dict[str, str], source: Callable[[str], str]) -> str:
    """The Markdown of one module under a link to its file."""
    own = [name for name, one in module.members.items() if not one.is_alias and not name.startswith("_")] or False
    config: Any = {**griffe2md.default_config, **LAYOUT, "members": own}
    context = griffe2md.prepare_context(module, config)
    text = template.get_template(f"{module.kind.value}.md.jinja").render(**context)
    file = module.filepath.relative_to(ROOT).as_posix() if not isinstance(module.filepath, list) else ""
    head, _, body = text.partition("\n")
    text = f"{head}\n\n[`{file}`]({source(file)})\n{body}" if file and source(file) else text
    text = "\n\n".join([text, *_names(module, where)])
    return _TYPED.sub(lambda found: _types(found[1], where), escaped(_linked(text)))


def _names(module: Any, where: dict[str, str]) -> list[str]:
    """The names that a room hands on from its modules, as links to where they stand; its stub file lists them."""
    if not module.is_init_module or isinstance(module.filepath, list):
        return []
    stub = module.filepath.with_suffix(".pyi")
    tree = ast.parse((stub if stub.exists() else module.filepath).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    paths = {
        name.asname or name.name: ".".join(filter(None, (module.path, node.module, name.name)))
        for node in imports
        for name in node.names
    }
    links = [_link(name, path, where) for name, path in sorted(paths.items()) if path in where]
    return [f"Names: {', '.join(links)}."] if links else []


def _types(text: str, where: dict[str, str]) -> str:
    """An annotation: names that have a place in the reference are links, the others are not."""
    pieces, end = [], 0
    for found in _NAME.finditer(text):
        pieces += [_quoted(text[end : found.start()]), _link(found[1], found[2], where)]
        end = found.end()
    return "".join([*pieces, _quoted(text[end:])])


def _quoted(text: str) -> str:
    return re.sub(r"([\[\]|*_<>])", r"\\\1", text)


def _link(name: str, path: str, where: dict[str, str]) -> str:
    shown = f"`{name.strip('*')}`"
    return f"[{shown}](book:{where[path]}.html#{path})" if path in where else shown


def _linked(text: str) -> str:
    """Names of attributes and parameters, which griffe2md makes links to anchors that it does not set."""
    return re.sub(r"^- \[\*\*(.+?)\*\*\]\(#[^)]*\)", r"- **\1**", text, flags=re.MULTILINE)
