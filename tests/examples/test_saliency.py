"""examples/saliency.py and the way to a net and images that it shares with others, on a net that hardly was trained."""

from __future__ import annotations

import argparse
import json
import pathlib

import common
import numpy as np
import pytest
import saliency as example
import train as training
from PIL import Image

import models
from minidl import data, weights
from minidl.inference import predict
from minidl.train import Settings

TINY = ["--limit", "32", "--epochs", "1", "--batch-size", "16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert training.main([*TINY, "--out", str(out)]) == 0
    return out


def load(*arguments: object, count: int = 8) -> common.Loaded:
    parser = argparse.ArgumentParser()
    common.add_arguments(parser)
    return common.load(parser.parse_args([str(a) for a in arguments]), count)


def png(path: pathlib.Path, channels: int = 3) -> pathlib.Path:
    shape = (40, 50) if channels == 1 else (40, 50, channels)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)).save(path)
    return path


def test_generated_lesions(run: pathlib.Path) -> None:
    model, images, labels, classes, normalize = load("--run", run, count=5)
    assert not model.training and classes == ("benign", "malignant")
    lesions = data.lesions(5, seed=1)
    assert (images == lesions.images).all() and labels is not None and (labels == lesions.labels).all()
    about = json.loads(weights.load_arrays(run / "model.safetensors")[1]["data"])
    assert np.allclose(normalize.mean, about["mean"]) and np.allclose(normalize.std, about["std"])
    assert load("--run", run, "--size", 48).images.shape == (8, 3, 48, 48)


def test_images_and_weights_of_ones_own(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mine = png(tmp_path / "mine.png")
    loaded = load("--run", run, "--image", mine, mine)
    assert loaded.images.shape == (2, 3, 32, 32) and loaded.images.dtype == np.uint8 and loaded.labels is None
    assert (loaded.images[0] == data.read_image(mine, (32, 32), 3)).all()
    for resized in load("--run", run, "--image", mine, "--size", 20), load("--run", run, "--image", mine, "--size", 20):
        assert resized.images.shape == (1, 3, 20, 20)

    grey = models.resnet8(num_classes=4, in_channels=1, seed=3)
    weights.save(grey, tmp_path / "grey.safetensors")
    asked = ["--weights", tmp_path / "grey.safetensors", "--model", "resnet8", "--image", mine]
    model, images, _, classes, normalize = load(*asked, "--size", 24)
    assert images.shape == (1, 1, 24, 24) and classes == ("class 0", "class 1", "class 2", "class 3")
    x = normalize(images)
    np.testing.assert_allclose(x, (images / 255 - 0.5) / 0.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predict(model, x), predict(grey, x))
    assert load(*asked).images.shape == (1, 1, 224, 224)
    assert load(*asked, "--mean", "0.1", "--std", "0.2").normalize.mean == [0.1]


def test_an_image_of_16_bits_becomes_one_of_8(tmp_path: pathlib.Path) -> None:
    Image.fromarray(np.array([[0, 65535], [32768, 257]], np.uint16)).save(tmp_path / "p.png")
    assert common.image(str(tmp_path / "p.png"), 2, 1).tolist() == [[[0, 255], [128, 1]]]


@pytest.mark.parametrize(("name", "classes", "channels"), [("resnet18", 7, 3), ("densenet40_12", 3, 4), ("googlenet", 5, 3)])
def test_classes_and_channels_are_read_off_the_weights(name: str, classes: int, channels: int, tmp_path: pathlib.Path) -> None:
    plain = {"aux": False} if name == "googlenet" else {}
    weights.save(getattr(models, name)(num_classes=classes, in_channels=channels, **plain), tmp_path / "w.safetensors")
    model, names, normalize = common.net(tmp_path / "w.safetensors", name)
    assert len(names) == classes and len(normalize.mean) == channels
    assert predict(model, np.zeros((1, channels, 32, 32), np.float32)).shape == (1, classes)


@pytest.mark.oracle
def test_a_checkpoint_of_pytorch(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model, mine = models.resnet8(num_classes=6, seed=2), png(tmp_path / "mine.png")
    state = {f"module.{name}": torch.tensor(a) for name, a in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    asked = ["--weights", tmp_path / "w.pth", "--model", "resnet8", "--image", mine, "--size", "32", "--prefix", "module."]
    with pytest.raises(ValueError, match="pass key='state_dict'"):
        load(*asked)
    loaded = load(*asked, "--key", "state_dict")
    x = loaded.normalize(loaded.images)
    np.testing.assert_array_equal(predict(loaded.model, x), predict(model, x))
    assert len(loaded.classes) == 6 and loaded.normalize.mean == common.IMAGENET[0]


@pytest.mark.parametrize(
    "damage",
    ["{", "[1]", "[" * 100_000, '{"classes": 3}', '{"classes": [1, 2]}', '{"classes": ["a"]}', '{"mean": ["a", "b", "c"]}',
     '{"mean": [0.5]}', '{"std": [1, 0, 1]}', '{"std": [1, NaN, 1]}'],
)  # fmt: skip
def test_what_weights_say_of_their_images(tmp_path: pathlib.Path, damage: str) -> None:
    path = tmp_path / "m.safetensors"
    weights.save_arrays(path, models.resnet8(num_classes=2).state_dict(), {"data": damage})
    with pytest.raises(ValueError, match=r"m\.safetensors: what it says of its images is damaged"):
        common.net(path, "resnet8")
    weights.save_arrays(path, models.resnet8(num_classes=2).state_dict(), {"data": '{"classes": ["a", "\\udce9"]}'})
    assert common.net(path, "resnet8")[1] == ("a", "\udce9")
    with pytest.raises(ValueError, match="model: expected one of"):
        common.net(path, "resnet9")


def test_the_default_net_is_trained_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(training.RECIPES, "lesions", {"epochs": 2, "batch_size": 16, "lr": 0.01})
    monkeypatch.setitem(training.DATA, "lesions", lambda settings: (data.lesions(32), data.lesions(16, seed=1)))
    trained = load().model.state_dict()
    assert (tmp_path / "runs" / "lesions-resnet8" / "gradients.png").exists()
    monkeypatch.setattr(training, "main", lambda arguments: pytest.fail("trained again"))
    assert all((a == trained[name]).all() for name, a in load().model.state_dict().items())


@pytest.mark.ci
def test_a_default_net_that_is_half_trained(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = pathlib.Path("runs/lesions-resnet8")

    def stop(rows: list[object]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.view, "curves", lambda path, rows, title: stop(rows))
        assert training.main([*TINY, "--epochs", "3", "--out", str(run)]) == 130
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert common.finished(run) == run  # by going on
    assert len((run / "metrics.jsonl").read_text().splitlines()) == Settings.of_run(run).epochs == 3
    for damage in "", "[1]\n[2]\n[3]\n", "{", "[" * 100_000:  # what was lost is written again
        (run / "metrics.jsonl").write_text(damage)
        assert common.finished(run) == run and len(common.rows_of(run)) == 3
    (run / "model.safetensors").unlink()
    assert common.finished(run) == run and len(common.rows_of(run)) == 3
    (run / "checkpoint.safetensors").unlink()  # which nobody needs who looks at the net
    assert common.finished(run) == run
    (run / "metrics.jsonl").unlink()
    with pytest.raises(SystemExit) as left:  # the net is there, and not written over
        common.finished(run)
    assert left.value.code == 1 and (run / "model.safetensors").exists()
    monkeypatch.setattr(training, "main", lambda arguments: 130)
    with pytest.raises(SystemExit):
        common.finished(run)


def test_the_example(run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    quick = ["--run", str(run), "--out", str(out), "--masks", "20"]
    assert example.main([*quick, "--count", "2"]) == 0
    printed = capsys.readouterr().out
    assert "saturation.png" in printed and "methods.png" in printed
    figures = {p.name: p.read_bytes() for p in out.iterdir()}
    assert sorted(figures) == ["methods.png", "saturation.png"]
    for name in figures:
        with Image.open(out / name) as image:
            assert image.width > 1000 and image.height > 300
    mine = png(tmp_path / "mine.png", 1)
    assert example.main([*quick, "--image", str(mine), "--layer", "conv1"]) == 0
    assert all((out / name).read_bytes() != before for name, before in figures.items())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--weights", "w.pth"], "--weights needs --model, the name of the net that the weights are of"),
        (["--model", "vgg16"], "--model needs --weights"),
        (["--run", "nowhere"], "--run: nowhere holds no finished training; examples/train.py --out nowhere makes one"),
        (["--weights", "no.safetensors", "--model", "resnet8"], "no.safetensors"),
        (["--image", "no.png"], "no.png"),
        (["--key", "x"], "key='x': a safetensors file holds the weights and no other entries"),
        (["--layer", "linear"], "layer: 'linear' is none of those with spatial extent"),
    ],
)
def test_errors_in_a_line(
    asked: list[str], message: str, run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = [] if "--run" in asked else ["--run", str(run)]
    assert example.main([*start, "--out", str(tmp_path), *asked]) == 1
    error = capsys.readouterr().err
    assert "error: " in error and message in error


def test_weights_without_images(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights.save(models.resnet8(2), tmp_path / "w.safetensors")
    assert example.main(["--weights", str(tmp_path / "w.safetensors"), "--model", "resnet8"]) == 1
    assert "error: --image is needed: " in capsys.readouterr().err


def test_log_odds() -> None:
    logits = np.array([[1.0, 2.0, 4.0], [700.0, 0.0, -5.0]])
    z = example.log_odds(logits, np.array([1, 0]))
    p = np.exp(2) / np.exp(logits[0]).sum()
    assert z[0] == pytest.approx(np.log(p / (1 - p))) and z[1] == pytest.approx(700 - np.log1p(np.exp(-5)))
    assert [example.percent(z) for z in (0.0, 4.5, 6.0, 20.0)] == ["= 50%", "= 99%", "= 99.75%", "> 99.99%"]
