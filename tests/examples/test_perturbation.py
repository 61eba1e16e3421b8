"""examples/perturbation.py on nets that hardly were trained: generated lesions, files, the study, and errors in a line."""

from __future__ import annotations

import pathlib

import numpy as np
import perturbation as example
import pytest
import train as training
from PIL import Image


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert training.main(["--limit", "32", "--epochs", "1", "--batch-size", "16", "--out", str(out)]) == 0
    return out


def test_both_methods_end_in_images(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    assert example.main(["--run", str(run), "--count", "2", "--iterations", "20", "--out", str(out)]) == 0
    for name in "masks.png", "areas.png":
        with Image.open(out / name) as image:
            assert min(image.size) > 250


def test_an_image_of_ones_own(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file, weights = tmp_path / "mine.png", run / "model.safetensors"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(file)
    asked = [
        "--image",
        str(file),
        "--weights",
        str(weights),
        "--model",
        "resnet8",
        "--deletion",
        "noise",
        "--size",
        "16",
        "--iterations",
        "5",
    ]
    assert example.main([*asked, "--out", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["areas.png", "masks.png"]


def test_the_study(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--run", str(run), "--study", "2", "--iterations", "5"]) == 0
    printed = capsys.readouterr().out
    for word in "benign: ", "malignant: ", "meaningful, evidence: p ", "meaningful, localisation: p ", "extremal, 10%: kept ":
        assert word in printed
    assert printed.count("mass on the lesion") == 3 * printed.count(" test images that")


def test_errors_in_a_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--run", str(tmp_path)]) == 1
    assert example.main(["--model", "resnet8"]) == 1
    errors = capsys.readouterr().err
    assert "holds no finished training" in errors and "--model needs --weights" in errors and "Traceback" not in errors
