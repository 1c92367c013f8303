"""The await points of the client: where they are in its source, and at which one a task waits.

So a campaign can tell where its faults began, and a fault can be asked to begin at a place instead of a time.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import trio

MODULES = ("acts", "catchup", "chain_port", "loop", "rundata", "sharing", "weights")
"""Of `psyche_chain.client`: all that runs in a simulated member and awaits something."""

_AWAITS = (ast.Await, ast.AsyncWith, ast.AsyncFor)


@cache
def places() -> tuple[str, ...]:
    """All await points, as `module.Class.function:number`, the number counting those of the function."""
    return tuple(name for found in _found().values() for _, _, name in found)


def where(task: trio.lowlevel.Task) -> list[str]:
    """The await points of the client that a task waits at, from its first function to the innermost."""
    names = []
    for frame, line in task.iter_await_frames():
        known = _found().get(frame.f_code.co_filename, ())
        around = [(last - first, name) for first, last, name in known if first <= line <= last]
        if around:
            names.append(min(around)[1])
    return names


@cache
def _found() -> dict[str, list[tuple[int, int, str]]]:
    """File -> first line, last line and name of its await points."""
    found = {}
    for module in MODULES:
        spec = find_spec(f"psyche_chain.client.{module}")
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin)
        found[str(path)] = _of_source(module, ast.parse(path.read_text()))
    return found


def _of_source(module: str, tree: ast.Module) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef):
                visit(child, f"{name}.{child.name}")
                continue
            if isinstance(child, _AWAITS):
                number = sum(known.rpartition(":")[0] == name for _, _, known in found)
                found.append((child.lineno, _last_line(child), f"{name}:{number}"))
            visit(child, name)

    visit(tree, module)
    return found


def _last_line(node: ast.AST) -> int:
    """Of what is awaited itself, not of the block that follows it."""
    match node:
        case ast.AsyncWith():
            ends = [item.context_expr.end_lineno for item in node.items]
        case ast.AsyncFor():
            ends = [node.iter.end_lineno]
        case _:
            ends = [getattr(node, "end_lineno", None)]
    last = ends[-1]
    assert last is not None
    return last
