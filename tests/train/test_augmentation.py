"""What becomes of a batch before it is learnt, and mirror images that are asked too; resumed, killed, and refused."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import models
from minidl import nn
from minidl.array import Array
from minidl.data import ColorJitter, Dataset, RandomCrop, RandomFlip, RandomRotation, RandomZoom, lesions
from minidl.inference import evaluate, predict
from minidl.train import Contract, Settings, evaluate_run, fit, load_run, scores
from minidl.train.augmentation import augmentation
from tests.train.test_train import ROOT, SETTINGS, TEST, TRAIN, BreaksAt, Net, contents, read, same_run, without_times

ALL = replace(SETTINGS, epochs=2, rotate=20, zoom=(0.8, 1.3), colour=(0.3, 0.2, 0.2, 0.05), test_flips=True)
NETS = {"Net": lambda num_classes, in_channels: Net(num_classes)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out: pathlib.Path = tmp_path_factory.mktemp("runs") / "whole"
    fit(Net(), TRAIN, ALL, out, TEST)
    return out


def batch(channels: int, dtype: Any = np.uint8, high: float = 255) -> Dataset:
    x = np.random.default_rng(channels).uniform(0, high, (8, channels, 12, 12)).astype(dtype)
    return Dataset(x, np.arange(8) % 2, ("a", "b"))


# ---- turned, zoomed, lit otherwise


def test_it_is_that_of_the_functions_one_after_the_other() -> None:
    d = batch(3)
    contract = Contract.of(d, "Net")
    x, rng = d.images, np.random.default_rng(5)
    fill = contract.mean
    for f in (
        RandomRotation(20, fill),
        RandomZoom((0.8, 1.3), fill),
        RandomCrop(2, fill),
        RandomFlip(),
        RandomFlip(axis="vertical"),
        ColorJitter(0.3, 0.2, 0.2, 0.05),
    ):
        x = f(x, rng)
    found = augmentation(ALL, contract)(d.images, np.random.default_rng(5))
    np.testing.assert_array_equal(found, contract.normalize(x))
    share = augmentation(replace(ALL, zoom=0.25), contract)(d.images, np.random.default_rng(5))
    ends = augmentation(replace(ALL, zoom=(0.75, 1.25)), contract)(d.images, np.random.default_rng(5))
    np.testing.assert_array_equal(share, ends)


@pytest.mark.parametrize(
    ("channels", "high", "colour", "message"),
    [
        (1, 255, (0.2, 0.1, 0.1), r"colour: expected images of 3 channels for a saturation of 0\.1, got 1; write "
         r"colour=\(0\.2, 0\.1\) \(--colour 0\.2 0\.1\), brightness and contrast alone"),
        (4, 255, (0.2, 0, 0, 0.1), r"for a hue of 0\.1, got 4; write colour=\(0\.2, 0\)"),
        (3, 3000, (0.2,), r"colour: expected images whose black is 0, .* got .* to .*; cut a window of grey values"),
        (1, 3000, (0.2,), r"--window LOW,HIGH"),
    ],
)  # fmt: skip
def test_where_colour_cannot_be(
    channels: int, high: float, colour: tuple[float, ...], message: str, tmp_path: pathlib.Path
) -> None:
    d = batch(channels, np.uint8 if high == 255 else np.float32, high)
    with pytest.raises(ValueError, match=message):
        fit(models.resnet8(2, channels), d, Settings(epochs=1, batch_size=4, colour=colour), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("channels", "dtype", "high"), [(1, np.uint8, 255), (1, np.float32, 1), (4, np.uint8, 255)])
def test_light_needs_no_colours(channels: int, dtype: Any, high: float) -> None:
    d = batch(channels, dtype, high)
    settings = Settings(crop=0, flip="none", colour=(0.5, 0.5))
    f = augmentation(settings, Contract.of(d, "Net"))
    assert not np.array_equal(f(d.images, np.random.default_rng(0)), f.functions[-1](d.images, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rotate": 181}, r"rotate: expected a number in \[0, 180\], got 181"),
        ({"rotate": -1}, r"rotate: expected a number in \[0, 180\], got -1"),
        ({"zoom": 1.0}, r"zoom: expected a number in \[0, 1\), got 1\.0"),
        ({"zoom": (1.2, 0.8)}, r"zoom: expected a number in \[0, 1\), or \(low, high\), low <= high, got \(1\.2, 0\.8\)"),
        ({"zoom": (0, 1)}, r"zoom\[0\]: expected a number in \(0, inf\), got 0"),
        ({"colour": (0.1,) * 5}, "colour: expected up to 4 strengths, brightness, contrast, saturation, hue, got"),
        ({"colour": (0, 0, 0, 0.6)}, r"hue: expected a number in \[0, 0\.5\], got 0\.6"),
        ({"window": (4, 3)}, r"window: expected \(low, high\), low < high, got \(4, 3\)"),
        ({"test_flips": True, "flip": "none"}, "test_flips: a net is asked by the flips that it is trained with, and flip is"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_settings_come_back(tmp_path: pathlib.Path) -> None:
    asked = replace(ALL, window=(40, 400), groups="/([0-9]+)_", lazy=True)
    (tmp_path / "settings.json").write_text(json.dumps(vars(asked)))
    assert Settings.of_run(tmp_path) == asked and asked.zoom == (0.8, 1.3) and asked.window == (40.0, 400.0)
    replace(asked, lazy=False).continues(asked)  # where images are is no part of what is done
    with pytest.raises(ValueError, match=r"zoom was \[0\.8, 1\.3\] and now is 0\.1"):
        replace(asked, zoom=0.1).continues(asked)
    with pytest.raises(TypeError, match="lazy: expected True or False, got 1"):
        Settings(lazy=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="groups: expected a string, got 3"):
        Settings(groups=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [1, 3, 4])
def test_resumed_to_the_same_bits(whole: pathlib.Path, tmp_path: pathlib.Path, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(BreaksAt(at, "interrupt"), TRAIN, ALL, tmp_path, TEST)
    fit(Net(seed=9 if at > 2 else 0), TRAIN, ALL, tmp_path, TEST, resume=True)
    assert same_run(whole, tmp_path)


def test_killed_and_resumed_to_the_same_bits(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = f"from {__name__} import *; fit(BreaksAt(4, 'wait'), TRAIN, ALL, {str(tmp_path)!r}, TEST)"
    with subprocess.Popen([sys.executable, "-c", run], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.kill()
    assert process.returncode == -signal.SIGKILL and lines[3] == "waiting\n"
    assert without_times(read(tmp_path)) == without_times(read(whole))[:1]
    fit(Net(seed=9), TRAIN, ALL, tmp_path, TEST, resume=True)
    assert same_run(whole, tmp_path)


def test_each_of_it_changes_what_is_learnt(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name, other in {"rotate": 0.0, "zoom": 0.0, "colour": ()}.items():
        fit(Net(), TRAIN, replace(ALL, **{name: other}), tmp_path / name, TEST)  # type: ignore[arg-type]
        assert not same_run(whole, tmp_path / name), name


# ---- mirror images are asked, too


def by_hand(model: nn.Module, x: Array) -> Array:
    ways = [x, x[..., ::-1], x[:, :, ::-1], x[:, :, ::-1, ::-1]]
    mean: Array = np.mean([predict(model, np.ascontiguousarray(way)) for way in ways], 0)
    return mean


def test_the_answer_is_the_mean_over_the_flips_of_the_training_everywhere(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    net = load_run(tmp_path, NETS)
    x = net.inputs(TEST.images)
    expected = by_hand(net.model, x)
    assert net.contract.test_flips == "both" and np.abs(expected - predict(net.model, x)).max() > 1e-3
    for found in (
        net.logits(x),
        net.logits(x, 4),
        predict(net.model, x, flips="both"),
        evaluate(net.model, TEST, 7, net.contract.normalize, "both")[1],
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net.logits(x[..., ::-1].copy()), expected, rtol=1e-5, atol=1e-6)
    last, tested = read(tmp_path)[-1], evaluate_run(tmp_path, NETS, TEST)
    other = scores(net.model, TEST, net.contract.normalize, 16)
    assert tested["loss"] == pytest.approx(last["validation_loss"], rel=1e-6) and other["loss"] != tested["loss"]
    assert tested["loss"] == pytest.approx(-log_softmax(expected)[np.arange(len(TEST)), TEST.labels].mean(), rel=1e-5)


def log_softmax(z: Array) -> Array:
    z = z.astype(np.float64)
    z = z - z.max(1, keepdims=True)
    out: Array = z - np.log(np.exp(z).sum(1, keepdims=True))
    return out


def test_without_flips_the_bits_are_those_of_the_net() -> None:
    model, x = Net().eval(), lesions(6).images.astype(np.float32) / 255
    np.testing.assert_array_equal(predict(model, x, flips="none"), predict(model, x))
    for flips, axes in ("horizontal", 3), ("vertical", 2):
        expected = (predict(model, x) + predict(model, np.flip(x, axes).copy())) / 2
        np.testing.assert_allclose(predict(model, x, flips=flips), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"flips: expected one of \('none', 'horizontal', 'vertical', 'both'\), got 'all'"):
        predict(model, x, flips="all")
    with pytest.raises(ValueError, match="flips: expected one of"):
        evaluate(model, TEST, flips="all")


# ---- a net that answers something else


@pytest.mark.parametrize("classes", [1, 3])
def test_a_net_of_other_classes_is_refused_before_it_trains(classes: int, tmp_path: pathlib.Path) -> None:
    model = Net(classes)
    before = {name: a.copy() for name, a in model.state_dict().items()}
    message = rf"model: expected 2 logits, one for each class, got {classes}; build Net for 2 classes, such as with"
    with pytest.raises(ValueError, match=message):
        fit(model, TRAIN, SETTINGS, tmp_path / "run", TEST)
    assert not (tmp_path / "run").exists() and model.calls == 0
    assert all(np.array_equal(a, before[name]) for name, a in model.state_dict().items())


def test_sets_through_different_windows_are_refused(tmp_path: pathlib.Path, whole: pathlib.Path) -> None:
    wide, narrow = (replace(d, window=window) for d, window in ((TRAIN, (0, 400)), (TEST, (40, 80))))
    with pytest.raises(ValueError, match=r"train_set was read through the window \(0\.0, 400\.0\), validation through \(40"):
        fit(Net(), wide, SETTINGS, tmp_path / "run", narrow)
    before = contents(whole)
    with pytest.raises(ValueError, match=r"test_set: expected images .* the window None, as in training, got \(40\.0, 80\.0\)"):
        evaluate_run(whole, NETS, narrow)
    assert contents(whole) == before
