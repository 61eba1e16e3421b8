"""examples/factorisation.py on small images: the counts of the papers, the bottleneck, the table and the chart."""

from __future__ import annotations

import importlib.util
import pathlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import minidl
from minidl import Tensor

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "factorisation.py"
spec = importlib.util.spec_from_file_location("factorisation_example", SCRIPT)
assert spec is not None and spec.loader is not None
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)


def made(question: int) -> dict[str, minidl.nn.Module]:
    q = example.QUESTIONS[question]
    return {name: make(q.channels, np.random.default_rng(0)) for name, make in q.ways.items()}


@pytest.mark.parametrize(("question", "ratio"), [(0, Fraction(18, 25)), (1, Fraction(6, 9))])
def test_convolutions_taken_apart(question: int, ratio: Fraction) -> None:
    """18 of 25 weights and multiply-adds, 6 of 9, and the same pixels seen"""
    whole, parts = (minidl.cost(m, (64, 35, 35)) for m in made(question).values())
    assert Fraction(parts.parameters, whole.parameters) == Fraction(parts.multiply_adds, whole.multiply_adds) == ratio
    assert parts.rows[-1].receptive_field == whole.rows[-1].receptive_field
    assert parts.rows[-1].shape == whole.rows[-1].shape


def test_inception_modules() -> None:
    naive, reduced = (minidl.cost(m, (192, 28, 28)) for m in made(2).values())
    convolutions = 192 * 64 + 192 * 128 * 9 + 192 * 32 * 25
    assert naive.multiply_adds == 28 * 28 * convolutions
    reductions = 192 * 64 + 192 * 96 + 96 * 128 * 9 + 192 * 16 + 16 * 32 * 25 + 192 * 32
    assert reduced.multiply_adds == 28 * 28 * reductions
    assert (naive.rows[-1].shape[1], reduced.rows[-1].shape[1]) == (64 + 128 + 32 + 192, 256)


def test_grid_reductions() -> None:
    """Pooling first squeezes all into a quarter of the values; pooling last costs more than three times as much"""
    beside, first, last = (minidl.cost(m, (288, 35, 35)) for m in made(3).values())
    assert example.narrowest(first) == 288 * 17 * 17
    assert example.narrowest(beside) == example.narrowest(last) == 768 * 17 * 17
    assert first.multiply_adds < beside.multiply_adds < last.multiply_adds / 3
    assert {c.rows[-1].shape for c in (beside, first, last)} == {(1, 768, 17, 17)}


def test_seconds_measures_and_leaves_no_gradient() -> None:
    way = made(0)["5×5"]
    x = Tensor(np.zeros((1, 64, 5, 5), np.float32), requires_grad=True)
    forward, both = example.seconds(way, x)
    assert 0 < forward < both + 1 and x.grad is None and all(p.grad is None for p in way.parameters())


def test_table_and_image(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a" / "b"
    assert example.main(["--batch", "1", "--rounds", "1", "--pixels", "9", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| 5×5 as two 3×3 | 5×5 | 102,400 (1.00) | 8.3 M (1.00) | 5,184 values | 64 | " in printed
    assert "|  | 3×3, 3×3 | 73,728 (0.72) | 6.0 M (0.72) |" in printed and "| pool last |" in printed
    assert printed.startswith((out / "table.md").read_text().rstrip("\n"))
    with Image.open(out / "figure.png") as image:
        assert min(image.size) > 300


@pytest.mark.parametrize(("option", "least"), [("--rounds", 1), ("--batch", 1), ("--pixels", 3)])
def test_bad_numbers(option: str, least: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main([option, "0"])
    assert f"{option}: expected at least {least}, got 0" in capsys.readouterr().err


def test_ctrl_c(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "seconds", interrupted)
    assert example.main(["--pixels", "9", "--out", str(tmp_path)]) == 130
    assert "Stopped; nothing was written." in capsys.readouterr().out and not list(tmp_path.iterdir())
