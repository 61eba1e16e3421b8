"""examples/saliency.py and the way to a net and images that it shares with others, on a net that hardly was trained."""

from __future__ import annotations

import argparse
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
from minidl.train import Settings, load_run

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
    net, images, labels = load("--run", run, count=5)
    assert not net.model.training and net.classes == ("benign", "malignant")
    lesions = data.lesions(5, seed=1)
    assert (images == lesions.images).all() and labels is not None and (labels == lesions.labels).all()
    assert net.contract == load_run(run, training.MODELS).contract
    assert load("--run", run, "--size", 48).images.shape == (8, 3, 48, 48)


def test_images_and_weights_of_ones_own(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mine = png(tmp_path / "mine.png")
    loaded = load("--run", run, "--image", mine, mine)
    assert loaded.images.shape == (2, 3, 32, 32) and loaded.images.dtype == np.uint8 and loaded.labels is None
    assert (loaded.images[0] == data.load_image(mine, (32, 32), 3)).all()
    for resized in load("--run", run, "--image", mine, "--size", 20), load("--run", run, "--image", mine, "--size", 20):
        assert resized.images.shape == (1, 3, 20, 20)

    grey = models.resnet8(num_classes=4, in_channels=1, seed=3)
    weights.save(grey, tmp_path / "grey.safetensors")
    asked = ["--weights", tmp_path / "grey.safetensors", "--model", "resnet8", "--image", mine]
    loaded = load(*asked, "--size", 24)
    assert loaded.images.shape == (1, 1, 24, 24) and loaded.classes == ("class 0", "class 1", "class 2", "class 3")
    x = loaded.inputs(loaded.images)
    np.testing.assert_allclose(x, (loaded.images / 255 - 0.5) / 0.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predict(loaded.model, x), predict(grey, x))
    assert load(*asked).images.shape == (1, 1, 224, 224) and load(*asked, "--size", "24x32").images.shape == (1, 1, 24, 32)
    assert load(*asked, "--mean", "0.1", "--std", "0.2").contract.mean == (0.1,)


@pytest.mark.parametrize(("name", "classes", "channels"), [("resnet18", 7, 3), ("densenet40_12", 3, 4), ("googlenet", 5, 3)])
def test_classes_and_channels_are_read_off_the_weights(name: str, classes: int, channels: int, tmp_path: pathlib.Path) -> None:
    plain = {"aux": False} if name == "googlenet" else {}
    weights.save(getattr(models, name)(num_classes=classes, in_channels=channels, **plain), tmp_path / "w.safetensors")
    net = common.of_weights(tmp_path / "w.safetensors", name)
    assert len(net.classes) == classes and len(net.contract.mean) == channels
    assert predict(net.model, np.zeros((1, channels, 32, 32), np.float32)).shape == (1, classes)


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
    x = loaded.inputs(loaded.images)
    np.testing.assert_array_equal(predict(loaded.model, x), predict(model, x))
    assert len(loaded.classes) == 6 and loaded.contract.mean == common.IMAGENET[0]


def test_the_weights_of_a_run_say_what_they_take(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    arrays, words = weights.load_arrays(run / "model.safetensors")
    path = tmp_path / "w.safetensors"
    weights.save_arrays(path, arrays, words)
    assert common.of_weights(path, "resnet8").contract == load_run(run, training.MODELS).contract
    with pytest.raises(ValueError, match=r"w\.safetensors: its net is 'resnet8', which nets does not hold, but 'resnet20'"):
        common.of_weights(path, "resnet20")
    assert load("--run", tmp_path / "w.safetensors", "--image", png(tmp_path / "mine.png")).images.shape == (1, 3, 32, 32)
    weights.save_arrays(path, arrays, {"data": '{"classes": ["a", "b"], "mean": [0.1, 0.1, 0.1], "std": [1, 1, 1]}'})
    for way in ["--run", path], ["--weights", path, "--model", "resnet8"]:  # not with ImageNet's mean in silence
        with pytest.raises(ValueError, match="does not say what its net takes: an older minidl or another program wrote it"):
            load(*way, "--image", png(tmp_path / "mine.png"))


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


def one_logit(path: pathlib.Path) -> pathlib.Path:
    weights.save(models.resnet8(num_classes=1, seed=1), path)
    return path


def test_a_net_with_one_logit_has_two_classes(tmp_path: pathlib.Path) -> None:
    """z <= 0 and z > 0: p is the sigmoid's, and 1 less that."""
    path, x = tmp_path / "w.safetensors", np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    net = common.of_weights(one_logit(path), "resnet8")
    assert net.classes == ("class 0", "class 1") and not net.model.training
    z = predict(models.resnet8(num_classes=1, seed=1), x)
    logits = predict(net.model, x)
    np.testing.assert_allclose(np.exp(logits[:, 1]) / np.exp(logits).sum(1), 1 / (1 + np.exp(-z[:, 0])), rtol=1e-5)
    np.testing.assert_allclose(example.log_odds(logits, np.array([0, 1, 1])), z[:, 0] * [-1, 1, 1], rtol=1e-5)


def test_number_of() -> None:
    names = ("benign", "1", "malignant")
    assert [common.number_of(asked, names) for asked in (None, "benign", "1", "malignant", "2", "0")] == [None, 0, 1, 2, 2, 0]
    for wrong in "nevus", "3", "-1", "1.0", "":
        with pytest.raises(ValueError, match=f"--target: expected one of the classes 0 benign, 1 1, 2 malignant, got {wrong}"):
            common.number_of(wrong, names)


@pytest.mark.parametrize("C", [5, 7])
def test_any_number_of_channels(C: int, tmp_path: pathlib.Path) -> None:
    """Files of more than 4 channels are .npy, (H,W,C), and each channel is resized as an image is."""
    weights.save(models.resnet8(num_classes=2, in_channels=C), tmp_path / "w.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, C)).astype(np.uint8)
    np.save(tmp_path / "scan.npy", pixels)
    asked = ["--weights", tmp_path / "w.safetensors", "--model", "resnet8", "--size", 32, "--image", tmp_path / "scan.npy"]
    images = load(*asked).images
    assert images.shape == (1, C, 32, 32) and images.dtype == np.uint8
    for image, channel in zip(images[0], np.moveaxis(pixels, -1, 0), strict=True):
        Image.fromarray(channel).save(tmp_path / "channel.png")
        resized = data.load_image(tmp_path / "channel.png", (32, 32), 1)[0]
        assert np.abs(image.astype(int) - resized).max() <= 1
    np.save(tmp_path / "scan.npy", (pixels / 255).astype(np.float32))
    with pytest.raises(ValueError, match=r"scan\.npy: expected 8 bits a pixel, as the net was trained on"):
        load(*asked)


@pytest.mark.ci
def test_the_example_on_five_channels_and_on_one_logit(tmp_path: pathlib.Path) -> None:
    quick = ["--model", "resnet8", "--size", "32", "--masks", "20", "--out", str(tmp_path)]
    weights.save(models.resnet8(num_classes=2, in_channels=5), tmp_path / "five.safetensors")
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).integers(0, 256, (40, 50, 5)).astype(np.uint8))
    five = ["--weights", str(tmp_path / "five.safetensors"), "--image", str(tmp_path / "scan.npy")]
    assert example.main([*five, *quick]) == 0
    one = ["--weights", str(one_logit(tmp_path / "one.safetensors")), "--image",
           str(png(tmp_path / "p.png"))]  # fmt: skip
    shown = []
    for target in "class 1", "0", "1":
        assert example.main([*one, *quick, "--target", target]) == 0
        shown.append((tmp_path / "methods.png").read_bytes())
    assert shown[0] == shown[2] != shown[1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--target", "nevus"], "--target: expected one of the classes 0 benign, 1 malignant, got nevus"),
        (["--weights", "w.pth"], "--weights needs --model, the name of the net that the weights are of"),
        (["--model", "vgg16"], "--model needs --weights"),
        (["--run", "nowhere"], "--run: nowhere holds no finished training; examples/train.py --out nowhere makes one"),
        (["--weights", "no.safetensors", "--model", "resnet8"], "no.safetensors"),
        (["--image", "no.png"], "no.png"),
        (["--key", "x"], "--key and --prefix need --weights"),
        (["--size", "32x48"], "--size 32x48: lesions are drawn square"),
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
    assert [example.percent(z) for z in (-4.5, -6.0, -20.0)] == ["= 1%", "= 0.25%", "< 0.01%"]
