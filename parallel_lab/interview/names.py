"""What a piece of Python does with names: which it binds, changes and looks up, at once or in a later call."""

import ast
import builtins
from collections.abc import Iterator, Sequence

KNOWN = frozenset(dir(builtins)) | {"display", "get_ipython", "__name__"}
_CHANGING = frozenset({"append", "extend", "insert", "add", "update", "setdefault", "pop", "clear", "sort", "remove"})
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_BODIES = ("body", "handlers", "orelse", "finalbody")
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def bound(tree: ast.AST) -> set[str]:
    """The names that the statements of a cell bind, where a function's own are not seen."""
    found: set[str] = set()
    for node in _outside(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(one.asname or one.name).split(".")[0] for one in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
            found |= {node.name} if node.name else set()
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def changed(tree: ast.AST) -> set[str]:
    """The names of what a cell changes and does not bind: `x[0] = 1`, `x.a = 1`, `x += 1`, `x.append(1)`."""
    found: set[str] = set()
    for node in _outside(tree):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found |= _base(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
            found |= _base(node.func)
    return found


def _base(node: ast.AST) -> set[str]:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _outside(tree: ast.AST) -> Iterator[ast.AST]:
    """`tree` and the nodes below it that run with it: not those inside of functions, classes and comprehensions."""
    yield tree
    if not isinstance(tree, (*_SCOPES, *_COMPREHENSIONS)):
        for node in ast.iter_child_nodes(tree):
            yield from _outside(node)


def looked_up(tree: ast.Module) -> set[str]:
    """The names that a cell takes from before while it runs; those inside its functions are looked up later."""
    found: set[str] = set()
    _follow(tree.body, found, set(KNOWN))
    return found


def _follow(statements: Sequence[ast.AST], found: set[str], there: set[str]) -> None:
    """Adds to `found` what `statements` look up and is not `there` yet, and to `there` what they bind, in order."""
    for one in statements:
        bodies = [body for name in _BODIES if (body := getattr(one, name, None))]
        simple = isinstance(one, _SCOPES) or not bodies
        for head in [one] if simple else _heads(one):
            found |= free(head, running=True) - there
            there |= bound(head)
        for body in [] if simple else bodies:
            _follow(body, found, there)


def _heads(statement: ast.AST) -> list[ast.AST]:
    """What a loop, a branch or a block is over, in the order in which it is looked at."""
    if isinstance(statement, (ast.For, ast.AsyncFor)):
        return [statement.iter, statement.target]
    if isinstance(statement, ast.ExceptHandler):
        return [ast.Name(statement.name or "_", ast.Store()), *filter(None, [statement.type])]
    fields = [value for name, value in ast.iter_fields(statement) if name not in _BODIES]
    return [
        one for value in fields for one in (value if isinstance(value, list) else [value]) if isinstance(one, ast.AST)
    ]


def free(node: ast.AST, running: bool = False) -> set[str]:
    """The names that `node` looks up and that are not those of a function or a comprehension in it.

    With `running`, only those that it looks up before a function in it is called.
    """
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if running and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        outside = [*getattr(node, "decorator_list", ()), *node.args.defaults, *filter(None, node.args.kw_defaults)]
        return set().union(*(free(one, running) for one in outside))
    inside = set().union(*(free(one, running) for one in ast.iter_child_nodes(node)))
    added = {node.target.id} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else set()
    return (inside | added) - own(node)


def own(node: ast.AST) -> set[str]:
    """The names that belong to a function, a class or a comprehension itself."""
    if isinstance(node, _COMPREHENSIONS):
        return {one.id for g in node.generators for one in ast.walk(g.target) if isinstance(one, ast.Name)}
    if isinstance(node, ast.ClassDef):
        return bound(ast.Module(node.body, []))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        a = node.args
        named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        body = [] if isinstance(node, ast.Lambda) else node.body
        return {one.arg for one in named} | bound(ast.Module(body, []))
    return set()


def called(tree: ast.AST) -> set[str]:
    """The functions that are called by their name."""
    return {one.func.id for one in _outside(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)}
