"""Running statements for what the last one comes to, in the kernel and in ranks. It loads nothing, so that both may."""

import ast
import linecache
from typing import Any


def value_of(tree: ast.Module, source: str, where: str, space: dict[str, Any]) -> Any:
    """Runs statements in `space`, and returns what the last one comes to; errors quote the lines of `source`."""
    linecache.cache[where] = (len(source), None, source.splitlines(keepends=True), where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), space)
    return eval(compile(ast.Expression(last.value), where, "eval"), space) if isinstance(last, ast.Expr) else None
