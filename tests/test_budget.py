"""How small minidl is: lines of code of a room, of a file and on the learner's path, and arguments of a kernel."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import minidl

PACKAGE = Path(minidl.__file__).parent
MOST_ARGUMENTS, MOST_LINES, MOST_ON_THE_PATH = 12, 400, 1250

PATH = (  # what a learner reads, from a tensor to the gradients of a small net
    "core.py array.py stable.py ops/conv.py ops/norm.py ops/activation.py ops/pool.py ops/linear.py ops/loss.py "
    "kernels/reference.py"
).split()


def code_lines(text: str) -> int:
    """Lines of code; docstrings, comments and empty lines do not count"""
    described = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            described |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    layout = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
    tokens = (token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in layout)
    return len({line for token in tokens for line in range(token.start[0], token.end[0] + 1)} - described)


LINES = {path.relative_to(PACKAGE).as_posix(): code_lines(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


def test_rooms(tell: Callable[[str], None]) -> None:
    rooms = Counter[str]()
    for name, count in LINES.items():
        rooms[name.split("/")[0].removesuffix(".py")] += count
    tell(f"lines of code: {sum(rooms.values()):,}, {', '.join(f'{room} {count:,}' for room, count in rooms.most_common())}")
    assert rooms["kernels"] > rooms["core"] > 0


def test_the_path_of_a_learner(tell: Callable[[str], None]) -> None:
    lines = {name: LINES[name] for name in PATH}
    tell(
        f"the learner's path: {sum(lines.values()):,} lines of code, {', '.join(f'{n} {count}' for n, count in lines.items())}"
    )
    assert sum(lines.values()) < MOST_ON_THE_PATH


def test_no_file_has_more_than_four_hundred_lines_of_code() -> None:
    long = {name: count for name, count in LINES.items() if count > MOST_LINES}
    assert not long, long


def test_lines_of_code_are_counted_without_what_describes_them() -> None:
    assert code_lines('"""A\n\nB"""\n\n# C\nx = (\n    1,  # D\n)\n\n\ndef f():\n    """E"""\n    return x\n') == 5


def too_many(text: str) -> list[str]:
    """Functions with more than MOST_ARGUMENTS arguments, `*args` being one"""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            a = node.args
            count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs) + (a.vararg is not None) + (a.kwarg is not None)
            if count > MOST_ARGUMENTS:
                found.append(f"{getattr(node, 'name', 'lambda')} takes {count} arguments")
    return found


def test_no_kernel_takes_more_than_twelve_arguments() -> None:
    found = [f"{path}: {what}" for path in sorted((PACKAGE / "kernels").rglob("*.py")) for what in too_many(path.read_text())]
    assert not found, "\n".join(found)


def test_thirteen_arguments_are_found() -> None:
    assert too_many(f"def f({', '.join('abcdefghijklm')}): pass") == ["f takes 13 arguments"]
    assert too_many(f"def f({', '.join('abcdefghijkl')}): pass") == []
    assert too_many("g = lambda a, b, c, d, e, f, g, h, i, j, k, *, l, m: 0") == ["lambda takes 13 arguments"]
