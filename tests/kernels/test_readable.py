"""Kernels can be read: worked examples compute what they say, calls and files are short, a formula stands once."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minidl
from minidl.kernels import cuda, reference
from minidl.kernels.compiled import columns, direct, winograd
from tests import pictures

PACKAGE = Path(minidl.__file__).parent
MOST_ARGUMENTS, MOST_LINES = 12, 400
IN_ONE_FILE = ("core.py",)  # Tensor, Op and the walk belong together


# ---- the algorithms, in a dozen lines of NumPy at the head of the file that computes so


def example_of(module: ModuleType) -> tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str]:
    """The function `example` that is written out in a module's docstring, and its text"""
    lines = inspect.getdoc(module).splitlines()  # type: ignore[union-attr]
    begin = next(k for k, line in enumerate(lines) if line.startswith("    def example("))
    end = next(k for k, line in enumerate(lines) if k > begin and line and not line.startswith("    "))
    text = textwrap.dedent("\n".join(lines[begin:end])).split("\n\n")[0]
    scope = {"np": np}
    exec(text, scope)
    return scope["example"], text  # type: ignore[return-value]


@pytest.mark.parametrize("module", [direct, winograd, columns, cuda.direct])
@pytest.mark.parametrize(("C", "F"), [(1, 1), (3, 2)])
def test_the_example_at_the_head_is_a_convolution(module: ModuleType, C: int, F: int) -> None:
    example, text = example_of(module)
    assert len(text.splitlines()) <= 16
    rng = np.random.default_rng(0)
    for size in (4, 6):
        x, w = rng.standard_normal((C, size, size)), rng.standard_normal((F, C, 3, 3))
        want = reference.conv2d(x[None], w, None, (1, 1), (1, 1), (1, 1), 1)[0]
        np.testing.assert_allclose(example(x, w), want, rtol=0, atol=1e-12)


# ---- short calls, short files


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


def code_lines(text: str) -> int:
    """Lines of code, docstrings, comments and empty lines aside"""
    described = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            described |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    layout = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
    tokens = (token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in layout)
    return len({line for token in tokens for line in range(token.start[0], token.end[0] + 1)} - described)


def test_no_file_has_more_than_four_hundred_lines_of_code() -> None:
    lines = {str(path.relative_to(PACKAGE)): code_lines(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    long = {name: count for name, count in lines.items() if count > MOST_LINES and name not in IN_ONE_FILE}
    assert not long, long


def test_lines_of_code_are_counted_without_what_describes_them() -> None:
    assert code_lines('"""A\n\nB"""\n\n# C\nx = (\n    1,  # D\n)\n\n\ndef f():\n    """E"""\n    return x\n') == 5


# ---- minidl/kernels/README.md


def test_the_readme_names_what_is_there() -> None:
    text = (PACKAGE / "kernels" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"!\[.+?\]\((.*?)\)", text)
    assert len(named) == 4
    for path in named:
        assert 0 < (PACKAGE / "kernels" / path).stat().st_size < 100_000
    for name in re.findall(r"`([\w/.]+\.py)`", text):
        assert any((PACKAGE / "kernels" / folder / name).exists() for folder in ("", "compiled")), name


@pytest.mark.ci
def test_its_pictures_are_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FOLDER", tmp_path / "new")
    pictures.main()
    drawn = {path.name: path.stat().st_size for path in (tmp_path / "new").iterdir()}
    assert set(drawn) == {path.name for path in (PACKAGE / "kernels" / "pictures").iterdir()} and min(drawn.values()) > 0
