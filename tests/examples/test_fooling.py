"""examples/fooling.py and examples/linearity.py as they are used, on a net that hardly was trained."""

from __future__ import annotations

import os
import pathlib

import fooling
import linearity
import numpy as np
import pytest
import train as training
from PIL import Image

from minidl import data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert training.main(["--limit", "32", "--epochs", "1", "--batch-size", "16", "--out", str(out)]) == 0
    return out


@pytest.fixture
def png(tmp_path: pathlib.Path) -> str:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(tmp_path / "mine.png")
    return str(tmp_path / "mine.png")


@pytest.mark.ci
def test_fooling(run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fooling.main(["--run", str(run), "--count", "12", "--out", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["accuracy.png", "classes.png", "fooled.png"]
    printed = capsys.readouterr().out
    assert "12 images; the sizes are means, in grey levels of 255 (the length is over all 3072 values)" in printed
    assert "gradient ascent to another class" in printed and "  8.0/255" in printed


@pytest.mark.ci
def test_images_of_ones_own(run: pathlib.Path, png: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--run", str(run), "--image", png, "--out", str(tmp_path / "out")]
    assert fooling.main([*asked, "--target", "1"]) == 0
    assert "accuracy.png: not drawn, 1 images are too few" in capsys.readouterr().out
    assert linearity.main(asked) == 0
    printed = capsys.readouterr().out
    assert "1 images: along the sign of the gradient" in printed and "gates, changed: 0.0% at eps = 0" in printed
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["classes.png", "fooled.png", "linearity.png"]


def test_two_nets(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert linearity.main(["--images", "200", "--epochs", "1", "--count", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "linearity.png").exists() and "ReLU " in printed and "sigmoids, slope, of the steepest:" in printed


def test_quarters() -> None:
    lesions = data.lesions(40)
    labels = linearity.quarters(lesions).labels
    for mask, label in zip(lesions.masks["lesion"], labels, strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if rows.max() < 16 or rows.min() >= 16:  # the lesion is whole in the upper or the lower half
            assert label // 2 == (rows.min() >= 16)
        if columns.max() < 16 or columns.min() >= 16:
            assert label % 2 == (columns.min() >= 16)
    assert set(labels) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--target", "7"], "y: expected one of the classes 0 to 1, got"),
        (["--image", "no-such.png"], "no-such.png"),
        (["--data", "cifar10"], "was trained on lesions; train one with examples/train.py --data cifar10"),
    ],
)
def test_errors_in_a_line(
    run: pathlib.Path, asked: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fooling.main(["--run", str(run), "--count", "2", "--out", str(tmp_path), *asked]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


REAL = os.environ.get("MINIDL_TEST_DATA", "")


@pytest.mark.skipif(not REAL, reason="MINIDL_TEST_DATA names no folder with cifar-10-batches-bin")
def test_cifar(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_cifar = ["--data", "cifar10", "--root", REAL]
    few = ["--model", "resnet8", "--limit", "64", "--epochs", "1", "--batch-size", "32", "--out", str(tmp_path / "run")]
    assert training.main([*of_cifar, *few]) == 0
    assert fooling.main([*of_cifar, "--run", str(tmp_path / "run"), "--count", "4", "--out", str(tmp_path / "out")]) == 0
    assert "4 images; the sizes are means" in capsys.readouterr().out and (tmp_path / "out" / "classes.png").exists()
