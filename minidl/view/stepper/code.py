"""The lines that computed a step on the way back: those of the op, and those of the kernels that it calls."""

from __future__ import annotations

import ast
import inspect
import pathlib
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any, NamedTuple

from minidl import kernels
from minidl.core import Op

_PACKAGE = pathlib.Path(__file__).parents[3]


class Lines(NamedTuple):
    """what: "push", "backward", or the name of a kernel. file: its place and first line. text: empty where nobody kept it."""

    what: str
    file: str
    text: str


def code(op: Op) -> list[Lines]:
    """The op's backward, the kernels that it calls and those that they call, and its push.

    Of a kernel it is the plain text in `kernels/reference.py`, which all other kernels agree with.
    """
    backward = lines("backward", type(op).backward)
    called = [lines(f.__name__, f) for f in kernels_of(op, backward.text)]
    return [backward, *called, *([lines("push", type(op).push)] if type(op).push is not Op.push else [])]


def lines(what: str, f: Any) -> Lines:
    """The text of a function or a method."""
    try:
        found, first = inspect.getsourcelines(f)
        return Lines(what, short(inspect.getsourcefile(f) or "", first), textwrap.dedent("".join(found)).rstrip())
    except (OSError, TypeError):  # typed into a prompt
        return Lines(what, "nobody kept the text", "")


def short(file: str, line: int) -> str:
    """A file by its place in the package, or by its folder and name: a page that is passed on tells nothing about a disk."""
    place = pathlib.Path(file)
    inside = place.is_relative_to(_PACKAGE / "minidl")
    return f"{place.relative_to(_PACKAGE).as_posix() if inside else '/'.join(place.parts[-2:])}:{line}"


def kernels_of(op: Op, text: str) -> list[FunctionType]:
    """The functions of `kernels/reference.py` that the text calls for this op, each followed by those that it calls."""
    found: dict[str, FunctionType] = {}

    def add(names: Iterator[str]) -> None:
        for name in names:
            f = vars(kernels.reference).get(name)
            if isinstance(f, FunctionType) and f.__module__ == kernels.reference.__name__ and name not in found:
                found[name] = f
                add(iter(f.__code__.co_names))

    add(_attributes(ast.parse(text), op))
    return list(found.values())


def _attributes(tree: ast.AST, op: Op) -> Iterator[str]:
    """Names behind a dot, without those of branches that this op does not take, which ask for `self.needs`."""
    if isinstance(tree, ast.Attribute):
        yield tree.attr
    left_out: Any = []
    if isinstance(tree, ast.If | ast.IfExp) and "self.needs" in ast.unparse(tree.test):
        taken = eval(
            compile(ast.Expression(tree.test), "<a test of needs>", "eval"), {"self": op}
        )  # it is text of the op itself
        left_out = tree.orelse if taken else tree.body
        left_out = left_out if isinstance(left_out, list) else [left_out]
    for part in ast.iter_child_nodes(tree):
        if part not in left_out:
            yield from _attributes(part, op)
