"""examples/robust.py as it is used, on a net that hardly was trained, and on published weights where these are."""

from __future__ import annotations

import os
import pathlib

import pytest
import robust
import train as training
from PIL import Image

IMAGE = pathlib.Path(robust.__file__).parent / "images" / "fooled.png"
FEW = ["--steps", "3", "--candidates", "1", "--squares", "4", "--batch-size", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert training.main(["--limit", "32", "--epochs", "1", "--batch-size", "16", "--out", str(out)]) == 0
    return out


@pytest.mark.ci
@pytest.mark.parametrize(("norm", "eps", "named"), [("linf", "2", "eps 2/255, "), ("l2", "0.5", "eps 0.5, ")])
def test_the_worst_case(
    run: pathlib.Path, norm: str, eps: str, named: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--run", str(run), "--count", "12", "--norm", norm, "--eps", "0", eps, "--out", str(tmp_path / "out")]
    assert robust.main([*asked, *FEW]) == 0
    printed = capsys.readouterr().out
    assert named in printed and printed.count("right under attack") == 2 and printed.count("apgd, dlr to a class") == 2
    assert ("carlini_wagner" in printed) == (norm == "l2")
    with Image.open(tmp_path / "out" / "accuracy.png") as drawn:
        assert min(drawn.size) > 200


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--data", "cifar10", "--weights", "resnet20.th"], "--weights needs --model"),
        (["--eps", "-1"], "eps: expected a number in [0, inf)"),
        (["--data", "cifar10", "--image", str(IMAGE)], "--image: the right answers to images of your own are not known"),
        (["--steps", "-1"], "steps: expected an integer of at least 0"),
    ],
)
def test_errors_in_a_line(
    run: pathlib.Path, asked: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert robust.main(["--run", str(run), "--count", "2", "--out", str(tmp_path), *asked]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


REAL = os.environ.get("MINIDL_TEST_DATA", "")


@pytest.mark.skipif(not REAL, reason="MINIDL_TEST_DATA names no folder with cifar-10-batches-bin")
def test_cifar(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_cifar = ["--data", "cifar10", "--root", REAL]
    few = ["--model", "resnet8", "--limit", "64", "--epochs", "1", "--batch-size", "32", "--out", str(tmp_path / "run")]
    assert training.main([*of_cifar, *few]) == 0
    assert robust.main([*of_cifar, "--run", str(tmp_path / "run"), "--count", "4", "--out", str(tmp_path / "out"), *FEW]) == 0
    assert capsys.readouterr().out.count("right under attack") == 5
