"""examples/transfer.py: what a draw is, and that a study which was stopped goes on."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import transfer as example  # examples/transfer.py
from PIL import Image

import models
from minidl import Tensor, data, nn, no_grad, weights
from tests.data.test_ham10000 import write

OPTIONS = "--model resnet8 --size 16 --count 8 --draws 2 --steps 2 --batch-size 4".split()


def grouped(n: int = 200) -> data.Dataset:
    """Groups of two, a quarter of class 1; the first pixel tells the number"""
    numbers = np.arange(n)
    images = np.zeros((n, 1, 4, 4), np.uint8)
    images[:, 0, 0, 0] = numbers
    return data.Dataset(images, (numbers // 2 % 4 == 0).astype(np.int64), ("a", "b"), groups=numbers // 2)


def numbers_of(found: data.Dataset) -> set[int]:
    return set(found.images[:, 0, 0, 0].tolist())


def test_draws_are_nested_in_proportion_and_of_whole_groups() -> None:
    whole = grouped()
    small, large, other = example.drawn(whole, 20, 0), example.drawn(whole, 100, 0), example.drawn(whole, 20, 1)
    assert len(numbers_of(small)) == 20 and len(numbers_of(large)) == 100
    assert numbers_of(small) < numbers_of(large) and numbers_of(small) != numbers_of(other)
    assert small.labels.sum() == 5 and large.labels.sum() == 25
    assert small.groups is not None and len(np.unique(small.groups[small.labels == 0])) <= 8  # 15 images in twos, one cut
    assert 0 < example.drawn(whole, 2, 0).labels.sum() < 2
    assert all(len(example.drawn(whole, n, 0)) == n for n in (2, 3, 198, 199, 200))


def test_steps_grow_with_the_third_root() -> None:
    plan = example.Plan(steps=100)
    assert [example.steps_of(plan, n) for n in (50, 200, 1600, 5000)] == [100, 100, 200, 292]


def published(folder: pathlib.Path) -> str:
    """Weights as somebody else leaves them."""
    path = folder / "resnet8.safetensors"
    weights.save(models.resnet8(num_classes=10, seed=5), path)
    return str(path)


@pytest.mark.parametrize("way", example.RATES)
def test_what_each_way_leaves_alone(way: str, tmp_path: pathlib.Path) -> None:
    lesions = data.lesions(16, 32, seed=0)
    asked = example.Training(example.Start("resnet8", "resnet8", published(tmp_path)), way, 16, 0, 0.1)
    model, settings = example.net_of(asked, lesions, 4)
    theirs = models.resnet8(num_classes=10, seed=5)
    same = np.array_equal(model.conv1.weight.data, theirs.conv1.weight.data)
    assert same == (way != example.SCRATCH)
    assert settings.freeze == (("conv1", "bn1", "layer1", "layer2", "layer3") if way == example.FROZEN else ())
    assert settings.body_lr == (0.1 if way == example.SLOW else 1.0)


def test_features_are_mean_and_spread_of_each_stage() -> None:
    model, x = models.resnet8(num_classes=2, seed=0), np.random.default_rng(0).random((5, 3, 16, 16), np.float32)
    with model.evaluating(), no_grad():
        y = model.layer1(nn.conv_relu(Tensor(x), model.conv1, model.bn1))
        stages = [y.data, (y := model.layer2(y)).data, model.layer3(y).data]
    expected = np.concatenate([f(a, axis=(2, 3)) for a in stages for f in (np.mean, np.std)], 1)
    assert example.features(model, x, batch_size=2) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_ridge_is_the_least_squares_of_standardised_features(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, decay, N, F = np.random.default_rng(0), 0.3, 40, 6
    few = data.Dataset(rng.integers(0, 256, (N, 1, 2, 3), np.uint8), rng.integers(0, 2, N), ("a", "b"))
    other = rng.integers(0, 256, (7, 1, 2, 3), np.uint8)

    def features(model: Any, x: Any) -> Any:
        z = np.reshape(x, (len(x), F)).astype(np.float64)
        return np.concatenate([z, np.full((len(x), 1), 5.0)], 1)  # and one that is always the same

    monkeypatch.setattr(example, "features", features)
    normalize = data.Normalize(*few.mean_std())
    scores = example.ridge(models.resnet8(num_classes=2), few, normalize, decay)(other)
    z, of_other = (features(None, normalize(images))[:, :F] for images in (few.images, other))
    mean, std = z.mean(0), z.std(0)
    # |y - mean y - Z w|^2 / N + decay |w|^2 is a sum of squares, too: that of N + F equations
    equations = np.concatenate([(z - mean) / std, np.sqrt(decay * N) * np.eye(F)])
    w = np.linalg.lstsq(equations, np.concatenate([few.labels - few.labels.mean(), np.zeros(F)]), rcond=None)[0]
    assert scores == pytest.approx((of_other - mean) / std @ w, rel=1e-9)


def test_a_study_that_was_stopped_goes_on(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out, train, calls = tmp_path / "ham", tmp_path / "out", example.train, list[Any]()
    write(root)
    command = ["--root", str(root), "--weights", published(tmp_path), *OPTIONS, "--out", str(out)]

    def stops(asked: Any, *rest: Any) -> Any:
        calls.append(asked)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(asked, *rest)

    monkeypatch.setattr(example, "train", stops)
    assert example.main(command) == 130
    assert "goes on after the last finished training" in capsys.readouterr().out
    rows = {path: path.read_text() for path in (out / "rows").glob("*.json")}
    assert len(rows) == 4 and not (out / "table.md").exists()
    damaged = sorted(rows)[0]
    damaged.write_text("{")
    assert example.main(command) == 0
    said = capsys.readouterr().out
    assert "17 trainings, 4 of them done before" in said
    assert len(calls) == 5 + 17 - 3 and all(path.read_text() == text for path, text in rows.items() if path != damaged)
    assert_told(out, said)


def assert_told(out: pathlib.Path, said: str) -> None:
    found = [json.loads(path.read_text()) for path in (out / "rows").glob("*.json")]
    first = {row["lr"]: row for row in found if (row["way"], row["count"], row["draw"]) == (example.TUNED, 8, 0)}
    second = [row for row in found if (row["way"], row["count"], row["draw"]) == (example.TUNED, 8, 1)]
    chosen = max(first.values(), key=lambda row: row["validation_auc"])
    assert len(first) == 2 and [row["lr"] for row in second] == [chosen["lr"]]
    mean = (chosen["test_auc"] + second[0]["test_auc"]) / 2
    table = (out / "table.md").read_text()
    assert table in said and f"resnet8, 8 images | {mean:.3f} (" in table
    with Image.open(out / "transfer.png") as image:
        assert min(image.size) > 300


@pytest.mark.ci
def test_another_net_and_grey_images(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "ALSO", 8)
    rng = np.random.default_rng(0)
    sets = {f"{part}_images": rng.integers(0, 256, (24, 16, 16), np.uint8) for part in ("train", "val", "test")}
    sets |= {f"{part}_labels": (np.arange(24) % 2)[:, None].astype(np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "pneumoniamnist.npz", **sets)
    other = tmp_path / "resnet20.safetensors"
    weights.save(models.resnet20(seed=1), other)
    command = ["--data", "medmnist", "--root", str(tmp_path / "pneumoniamnist.npz"), "--weights", published(tmp_path)]
    command += [*"--model resnet8 --count 8 --draws 1 --steps 1 --batch-size 4".split(), "--also", "resnet20", str(other)]
    assert example.main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "| resnet20, 8 images |" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "90"], "--count: 90 images are asked for, and"),
        (["--count", "1"], "count"),
        (["--draws", "0"], "draws: expected an integer of at least 1, got 0"),
        (["--also", "resnet9", "file"], "--also: expected one of"),
        (["--also", "resnet8", "file"], "--also: expected nets other than resnet8, each once"),
    ],
)
def test_what_cannot_be(options: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "ham")
    command = ["--root", str(tmp_path / "ham"), "--weights", published(tmp_path), *OPTIONS, *options]
    assert example.main([*command, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.ci
def test_real_images(tmp_path: pathlib.Path) -> None:
    """Published weights on HAM10000, where both are there."""
    root, file = os.environ.get("MINIDL_TEST_HAM10000"), os.environ.get("MINIDL_TEST_RESNET20")
    if not root or not file:
        pytest.skip("MINIDL_TEST_HAM10000 and MINIDL_TEST_RESNET20 do not say where HAM10000 and a published ResNet-20 are")
    command = ["--root", root, "--weights", file, "--key", "state_dict", "--prefix", "module.", "--count", "50"]
    assert example.main([*command, "--draws", "1", "--steps", "60", "--out", str(tmp_path)]) == 0
    found = [json.loads(path.read_text()) for path in (tmp_path / "rows").glob("*.json")]
    best = {way: max(row["test_auc"] for row in found if row["way"] == way) for way in example.RATES}
    assert best[example.TUNED] > 0.65 and best[example.RIDGE] > 0.65
