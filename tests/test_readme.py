"""The examples of the README run, and print what it says."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest

from minidl import OPS
from minidl.check import gradient_check

README = pathlib.Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", TEXT, re.DOTALL)


def test_it_shows_examples() -> None:
    assert len(BLOCKS) == 3 and sum(bool(output) for _, output in BLOCKS) == 1


@pytest.mark.parametrize(("code", "output"), BLOCKS)
def test_an_example(code: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {"__name__": "readme"}
    before = set(OPS)
    try:
        exec(compile(code, "README.md", "exec"), scope)
    finally:
        for name in set(OPS) - before:
            del OPS[name]
    assert capsys.readouterr().out == output
    if "square" in scope:
        gradient_check(scope["square"], [np.random.default_rng(0).normal(size=(2, 3))])  # type: ignore[arg-type]


def test_its_pictures_and_files_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert 0 < (README.parent / path).stat().st_size < 300_000
    for path in re.findall(r"`((?:minidl|models|examples|tests)/[\w/.]*)`", TEXT):
        assert (README.parent / path).exists(), path
