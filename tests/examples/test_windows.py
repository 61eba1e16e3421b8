"""examples/windows.py as it is used: on generated files, and on a run and files of one's own."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import train as training
import windows
from PIL import Image

from minidl.train import load_run
from tests.examples.test_sets import images

FEW = ["--epochs", "1", "--limit", "64"]


def test_the_same_files_through_three_windows(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert windows.main([*FEW, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "through 1500 to 2500 in place of 800 to 3350: " in said and "through 0 to 4095 in place of 800 to 3350: " in said
    with Image.open(tmp_path / "windows.png") as image:
        assert min(image.size) > 300
    files = sorted((tmp_path / "files").iterdir())
    assert len(files) == 4
    net = load_run(tmp_path / "net", training.MODELS)
    assert net.contract.window == windows.OWN and net.contract.levels == 65535
    with Image.open(files[0]) as image:
        grey = np.asarray(image)
    assert grey.dtype == np.uint16 and 800 <= grey.min() < grey.max() <= 3350
    held = windows.through(windows.data.lesions(4, channels=1, seed=1), windows.OWN)
    np.testing.assert_array_equal(net.prepare(files[0]), net.inputs(held.images[:1]))  # a file is what was trained on
    assert windows.main([*FEW, "--out", str(tmp_path)]) == 0  # nothing is trained again
    assert "epoch 1/1" not in capsys.readouterr().out


def test_a_run_and_files_of_ones_own(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = images(tmp_path / "mine", bits=12)
    words = ["--data", "folder", "--root", str(tmp_path / "mine"), "--epochs", "1", "--batch-size", "4"]
    for run, more in ("with", ["--window", "1000,3000"]), ("without", []):
        assert training.main([*words, *more, "--out", str(tmp_path / run)]) == 0
    files = [str(tmp_path / "mine" / name) for name in names[:2]]
    out = ["--out", str(tmp_path / "out")]
    asked = ["--run", str(tmp_path / "with"), "--image", *files, "--window=-160,240", "--window", "0,4095", *out]
    assert windows.main(asked) == 0
    assert "through -160 to 240 in place of 1000 to 3000: " in capsys.readouterr().out
    for words, message in (
        (["--run", str(tmp_path / "without"), "--image", *files], "was trained without a window; train one with"),
        (["--run", str(tmp_path / "with")], "--run and --image: give both"),
        (["--image", *files], "--run and --image: give both"),
    ):
        assert windows.main([*words, *out]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
