"""examples/residual_or_plain.py, and what it shares with other comparisons: interrupted and resumed, and what it draws."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import compare
import numpy as np
import pytest
import residual_or_plain as example
from PIL import Image

import models
from minidl import Tensor, data, nn, ops
from models.resnet import CifarResNet, PlainBlock, ResidualBlock
from tests.examples.test_train import result

SCRIPT = pathlib.Path(example.__file__)
TINY = ["--depths", "20", "32", "--images", "32", "--batch-size", "16", "--epochs", "2"]
NETS = ["plain20-0", "plain32-0", "resnet20-0", "resnet32-0"]


@pytest.mark.ci
def test_ctrl_c_and_the_same_command_again(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert example.main([*TINY, "--out", str(whole)]) == 0

    command = [sys.executable, "-u", str(SCRIPT), *TINY, "--out", str(out)]
    printed = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            if line.startswith("epoch 1/2") and "plain32" in printed:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130 and "Traceback" not in printed and "resnet32" not in printed
    assert printed.endswith("Stopped. The same command goes on after the last finished epoch.\n")
    assert not (out / "figure.png").exists()

    capsys.readouterr()
    assert example.main([*TINY, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    first, second = printed.split("plain32, seed 0, begun before\n")
    assert "plain20, seed 0, begun before\n" in first and "epoch" not in first.split("begun before\n")[1]  # not trained again
    assert "epoch 1/2" in second.split("resnet20, seed 0\n")[1].split("resnet32")[0]
    assert all(result(out / net) == result(whole / net) for net in NETS)
    assert sorted(p.name for p in out.iterdir()) == sorted([*NETS, "figure.png", "table.md"])
    with Image.open(out / "figure.png") as image:
        assert min(image.size) > 400
    table = (out / "table.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == ["plain20", "plain32", "resnet20", "resnet32"]
    assert len({len(row) for row in table}) == 1 and table[2].split("|")[2].strip() == "269,202"


def test_a_folder_of_another_comparison(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--depths", "20", "--images", "16", "--batch-size", "16", "--epochs", "1", "--out", str(tmp_path)]
    assert example.main([*asked, "--seeds", "3", "4"]) == 0
    folders = {"plain20-3", "plain20-4", "resnet20-3", "resnet20-4"}
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == folders
    capsys.readouterr()
    assert example.main([*asked, "--seeds", "4", "--lr", "0.3"]) == 1
    error = capsys.readouterr().err
    assert f"error: {tmp_path / 'plain20-4'} holds a run already" in error and "lr was 0.05 and now is 0.3" in error
    assert "choose another folder with --out" in error


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--images", "0"], "limit: expected an integer of at least 1, got 0"),
        (["--images", "8"], "batch_size: 32 is more than the 8 training images"),
        (["--data", "cifar10", "--root", "no/such/place"], "no/such/place"),
        (["--lr", "nan"], "lr: expected a number in (0, inf), got nan"),
    ],
)
def test_errors_in_a_line(
    asked: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.cifar, "fetch", lambda url, known_hash, root, folder: None)  # tests do not download
    assert example.main([*asked, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize(("flag", "known"), [("--data", "'lesions', 'cifar10'"), ("--depths", "20, 32, 44, 56, 110")])
def test_unknown_options_list_the_known_ones(flag: str, known: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main([flag, "9"])
    assert known.replace("'", "") in capsys.readouterr().err.replace("'", "")


def test_gradient_norms_are_those_of_finite_differences() -> None:
    model = CifarResNet(PlainBlock, 1, 3, 1, seed=0).to(dtype=np.float64)
    rng = np.random.default_rng(0)
    x, labels = Tensor(rng.standard_normal((4, 1, 8, 8))), np.array([0, 1, 2, 0])
    norms = example.gradient_norms(model, x, labels)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(norms) == len(weights) == 8
    for norm, w in zip(norms, weights, strict=True):
        direction, before = w.grad / np.linalg.norm(w.grad), w.data  # along it, the loss rises by the norm
        losses = []
        for h in (1e-5, -1e-5):
            w.data = before + h * direction
            losses.append(ops.cross_entropy(model(x), labels).item())
        w.data = before
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(norm, rel=1e-4)


def test_what_the_figure_says_of_gradients_at_the_start() -> None:
    """In a deep plain net they grow layer by layer on the way back, in a residual net they do not; no download is needed."""
    x, labels = example.first_batch(data.lesions(32, 32, seed=0), 32)
    plain, residual = (example.gradient_norms(make(2, 3, 0), x, labels) for make in (models.plain56, models.resnet56))
    assert len(plain) == len(residual) == 56
    assert plain[1] / plain[-2] > 100 and 0.1 < residual[1] / residual[-2] < 10


def test_the_nets_differ_in_their_shortcuts_alone() -> None:
    for depth in example.DEPTHS:
        plain, residual = (getattr(models, f"{kind}{depth}")() for kind in example.KINDS.values())
        assert compare.count(plain) == compare.count(residual)
        assert any(isinstance(m, ResidualBlock) for m in residual.modules())
        assert not any(isinstance(m, ResidualBlock) for m in plain.modules())


def test_the_verdict_and_the_table_count_errors() -> None:
    def row(hits: float) -> dict[str, float]:
        return {"train_accuracy": hits, "validation_accuracy": hits - 0.1, "train_loss": 1.0}

    rows = {
        "plain20": [[row(0.1), row(0.6)], [row(0.2), row(0.5)]],  # of two seeds
        "plain56": [[row(0.4)], [row(0.3)]],
        "resnet20": [[row(0.5)]],
        "resnet56": [[row(0.75)]],
    }
    said = example.verdict(rows, [20, 56])
    assert said == "training error with 56 layers instead of 20: +20.0 points (plain), -25.0 points (residual)"
    norms = [np.array([9.0, 8.0, 1.0, 2.0, 7.0]), np.array([9.0, 2.0, 1.0, 2.0, 7.0])]
    cells = example.line("plain20", models.plain20(), rows["plain20"], norms)
    assert cells == ["plain20", "269,722", "1.000", "45.0%", "55.0%", "2.0"]
