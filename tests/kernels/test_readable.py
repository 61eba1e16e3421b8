"""Kernels can be read: worked examples compute what they say, and the README names what is there."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minidl
from minidl.kernels import cuda, reference
from minidl.kernels.compiled import columns, direct, winograd
from tests import figures

PACKAGE = Path(minidl.__file__).parent


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


# ---- minidl/kernels/README.md


def test_the_readme_names_what_is_there() -> None:
    text = (PACKAGE / "kernels" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"!\[.+?\]\((.*?)\)", text)
    assert len(named) == 4
    for path in named:
        assert 0 < (PACKAGE / "kernels" / path).stat().st_size < 100_000
    for name in re.findall(r"`([\w/.]+\.py)`", text):
        assert any(
            (folder / name).exists() for folder in (PACKAGE / "kernels", PACKAGE / "kernels" / "compiled", PACKAGE.parent)
        ), name


@pytest.mark.ci
def test_its_images_are_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "new")
    figures.main()
    drawn = {path.name: path.stat().st_size for path in (tmp_path / "new").iterdir()}
    assert set(drawn) == {path.name for path in (PACKAGE / "kernels" / "images").iterdir()} and min(drawn.values()) > 0
