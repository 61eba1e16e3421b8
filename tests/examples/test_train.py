"""examples/train.py as it is used: interrupted and resumed, on folders of images, and asked for what cannot be."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from PIL import Image

from minidl import weights
from minidl.inference.memory import batch_in_memory

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "train.py"
spec = importlib.util.spec_from_file_location("train_example", SCRIPT)
assert spec is not None and spec.loader is not None
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

TINY = ["--limit", "96", "--epochs", "5", "--batch-size", "16"]
FILES = ["checkpoint.safetensors", "metrics.jsonl", "model.safetensors", "predictions.csv", "settings.json", "test.json"]
IMAGES = ["calibration.png", "card.md", "confusion.png", "curves.png", "gradients.png", "roc.png"]


def result(out: pathlib.Path) -> tuple[list[dict[str, object]], dict[str, bytes]]:
    """Metrics without times, and weights."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    arrays, _ = weights.load_arrays(out / "model.safetensors")
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in rows], {k: a.tobytes() for k, a in arrays.items()}


def test_ctrl_c_and_resume(tmp_path: pathlib.Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert example.main([*TINY, "--out", str(whole)]) == 0

    command = [sys.executable, "-u", str(SCRIPT), *TINY, "--out", str(out)]
    printed = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            if line.startswith("epoch 2/5"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130 and "Traceback" not in printed and "epoch 5/5" not in printed
    assert printed.endswith(f"To go on after the last finished epoch: python examples/train.py --resume --out {out}\n")
    assert 2 <= len(result(out)[0]) < 5

    assert example.main(["--resume", "--out", str(out), "--epochs", "5"]) == 0
    assert result(out) == result(whole)
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES + IMAGES)


def test_a_folder_of_images(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for (name, light), folder in product((("dark", 0), ("grey", 80), ("light", 160)), ("mine", "others")):
        (tmp_path / folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = (light + rng.integers(0, 90, (20 + i, 24))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{i}.png")
    out = tmp_path / "run"
    asked = ["--data", "folder", "--root", str(tmp_path / "mine"), "--size", "16", "--epochs", "2", "--batch-size", "8"]
    assert example.main([*asked, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "48 training and 12 test images of 16x16, 3 classes" in printed
    for name in IMAGES:
        if name.endswith(".png"):
            with Image.open(out / name) as image:
                assert min(image.size) > 300
    assert (out / "card.md").read_text().startswith("# resnet8 on folder")
    assert example.main(["--resume", "--out", str(out)]) == 0  # there is nothing left to do

    parts = tmp_path / "parts"
    parts.mkdir()
    for part, folder in ("train", "mine"), ("test", "others"):
        os.symlink(tmp_path / folder, parts / part)
    asked[3] = str(parts)
    assert example.main([*asked, "--limit", "30", "--out", str(tmp_path / "parts-run")]) == 0
    assert "30 training and 30 test images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--lr", "nan"], "lr: expected a number in (0, inf), got nan"),
        (["--epochs", "0"], "epochs: expected an integer of at least 1, got 0"),
        (["--limit", "20"], "batch_size: 64 is more than the 20 training images"),
        (["--data", "folder", "--root", "no/such/place"], "no/such/place is not a folder; expected root/CLASS/image.png"),
        (["--data", "cifar10", "--size", "64"], "--size 64: the images of cifar10 are 32x32"),
        (["--channels", "1"], "--channels 1: it is for --data folder and csv alone, not for lesions"),
        (["--size", "8"], "size: expected an integer of at least 32, got 8"),
        (["--resume"], "nothing to resume in"),
        (["--lr", "1e30", "--limit", "64"], "not finite"),
    ],
)
def test_errors_in_a_line(asked: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main([*asked, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize("flag", ["--model", "--data", "--device"])
def test_unknown_names(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        example.main([flag, "nonsense"])
    known = {
        "--model": ["resnet8", "resnet20"],
        "--data": ["lesions", "cifar10", "cifar100", "folder", "csv", "ham10000", "medmnist"],
        "--device": ["cpu", "gpu"],
    }
    error = capsys.readouterr().err
    assert left.value.code == 2 and "invalid choice: 'nonsense'" in error
    assert all(name in error for name in known[flag])


def test_a_second_run_into_the_same_folder(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--limit", "32", "--epochs", "1", "--batch-size", "16", "--out", str(tmp_path)]
    assert example.main(tiny) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert example.main(tiny) == 1
    assert f"error: {tmp_path} holds a run already" in capsys.readouterr().err
    assert example.main([*tiny, "--resume", "--lr", "0.3"]) == 1
    assert "a resumed run keeps its settings, but lr was 0.05 and now is 0.3" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_no_gpu(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("cupy"):
        pytest.skip("there is CuPy here")
    assert example.main(["--limit", "64", "--device", "gpu", "--out", str(tmp_path / "run")]) == 1
    assert "error: device 'gpu' needs CuPy" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


EDITS: list[tuple[dict[str, object], str]] = [
    ({"model": "resnet9"}, "not of a run of this script; model: expected one of ('densenet40_12'"),
    ({"model": ""}, "not of a run of this script; model: expected one of"),
    ({"data": "lesions M0, 3 channels"}, "not of a run of this script; data: expected one of ('lesions', 'cifar10'"),
    ({"speed": 1}, "is damaged or of another version: settings: 'speed' is unknown"),
    ({"epochs": 2}, "checkpoint.safetensors: a resumed run keeps its settings, but epochs was 1 and now is 2"),
    ({"limit": 33}, "checkpoint.safetensors: a resumed run keeps its settings, but limit was 32 and now is 33"),
]


@pytest.mark.ci
def test_a_run_that_was_changed(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert example.main(["--limit", "32", "--epochs", "1", "--batch-size", "16", "--out", str(out)]) == 0
    result_of = result(out)
    whole, settings = {p.name: p.read_bytes() for p in out.iterdir()}, json.loads((out / "settings.json").read_text())
    for edit, message in EDITS:
        (out / "settings.json").write_text(json.dumps(settings | edit))
        assert example.main(["--resume", "--out", str(out)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1
    (out / "settings.json").write_bytes(whole["settings.json"])
    for name in IMAGES:  # killed while it drew: these are drawn again
        (out / name).write_bytes(b"stale")
    for leftover in f".curves.png.{os.getpid()}.tmp", f".model.safetensors.{os.getpid()}.tmp":
        (out / leftover).write_bytes(b"killed while it wrote this")
    assert example.main(["--resume", "--out", str(out)]) == 0
    (arrays, words), again = weights.load_arrays(out / "model.safetensors"), {p.name: p.read_bytes() for p in out.iterdir()}
    assert {k: a.tobytes() for k, a in arrays.items()} == result_of[1] and json.loads(words["contract"])["height"] == 32
    del again["model.safetensors"], whole["model.safetensors"]  # its metadata have no order
    assert again == whole
    (out / "checkpoint.safetensors").unlink()
    capsys.readouterr()
    assert example.main(["--resume", "--out", str(out)]) == 1
    assert (
        "checkpoint.safetensors is missing, but model.safetensors and metrics.jsonl and test.json and predictions.csv are there"
        in capsys.readouterr().err
    )


@pytest.mark.ci
def test_classes_of_every_name(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders of images that are formulas, no UTF-8, several lines, right to left, emoji, very long; and of other labels."""
    rng = np.random.default_rng(0)
    names = [os.fsdecode(name) for name in (b"$\\frac{$", b"5$ to 6$", b"a_b^c", b"caf\xe9", b"two\nlines", b"l" * 200)]
    names += ["\U0001f9d1", "\u05e9\u05dc\u05d5\u05dd", "\u202egnp"]
    root, out = tmp_path / "mine", tmp_path / os.fsdecode(b"run \xe9 $x$")
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(root / name / f"{i}.png")
    asked = ["--data", "folder", "--root", str(root), "--epochs", "1", "--batch-size", "8", "--out", str(out)]
    assert example.main(asked) == 0
    assert example.main(["--resume", "--out", str(out)]) == 0
    assert "caf" not in capsys.readouterr().err
    _, words = weights.load_arrays(out / "model.safetensors")
    assert json.loads(words["contract"])["classes"] == sorted(names)
    assert "| caf\\" in (out / "card.md").read_text(encoding="utf-8")
    for name in IMAGES:
        if name.endswith(".png"):
            with Image.open(out / name) as image:
                assert min(image.size) > 300
    os.rename(root / "a_b^c" / "0.png", root / names[-1] / "9.png")  # labelled anew
    assert example.main(["--resume", "--out", str(out)]) == 1
    assert "was trained on other images or labels: the training" in capsys.readouterr().err


def kinds(root: pathlib.Path) -> None:
    """Two classes, each with grey of 8 and 16 bits, colour and colour with opaque alpha."""
    rng = np.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            grey = pixels[..., 0] if i % 2 else pixels[..., 0] * np.uint16(257)
            opaque = np.dstack([pixels, np.full((16, 16), 255, np.uint8)])
            Image.fromarray([grey, grey, pixels, opaque][i % 4]).save(root / name / f"{i}.png")


def advised(error: str) -> list[str]:
    """The first option that an error names, with its value"""
    return re.findall(r"\((--\w+) (\w+)\)", error)[0]


def test_the_advice_for_a_folder_can_be_followed(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds(tmp_path / "mine")
    Image.new("L", (20, 16)).save(tmp_path / "mine" / "a" / "9.png")
    pages = [Image.new("L", (16, 16), k) for k in (10, 200)]
    pages[0].save(tmp_path / "mine" / "b" / "9.tif", save_all=True, append_images=pages[1:])
    Image.new("CMYK", (16, 16)).save(tmp_path / "mine" / "b" / "99.tif")
    (tmp_path / "mine" / "b" / "notes.txt").touch()
    asked = ["--data", "folder", "--root", str(tmp_path / "mine"), "--epochs", "1", "--batch-size", "4"]
    followed = []
    with pytest.warns(UserWarning, match=r"passed over in .*: 1 \(b/notes.txt\), not named as an image is"):
        while example.main([*asked, "--out", str(tmp_path / "run")]):
            option, value = advised(capsys.readouterr().err)
            assert option not in followed
            asked += [option, "0" if option == "--page" else value]
            followed.append(option)
    assert sorted(followed) == ["--channels", "--page", "--size"]
    assert ", float32 from 0 to 1; " in capsys.readouterr().out


@pytest.mark.ci
def test_a_folder_of_floats(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.uniform(-1000, 3000, (16, 16)).astype(np.float32)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{i}.tif")
    asked = ["--data", "folder", "--root", str(tmp_path / "mine"), "--epochs", "1", "--batch-size", "4", "--channels", "3"]
    assert example.main([*asked, "--out", str(tmp_path / "run")]) == 0
    least, largest = re.findall(r"float32 from (\S+) to (\S+);", capsys.readouterr().out)[0]
    assert -1000 <= float(least) < -900 and 2900 < float(largest) <= 3000


def torchvision_file(name: str, path: pathlib.Path) -> None:
    """Drawn weights, named and formed as in the file that torchvision publishes, of 1,000 classes and with auxiliary heads."""
    state = example.MODELS[name](seed=7).state_dict()
    if name.startswith("densenet"):  # whose file is from before norm.1 was norm1
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): a for key, a in state.items()}
    weights.save_arrays(path, state)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "freeze"),
    [
        ("resnet50", ["conv1", "bn1", "layer1", "layer2"]),
        ("densenet121", ["features.conv0", "features.norm0", "features.denseblock1"]),
        ("inception_v3", ["Conv2d_1a_3x3", "Mixed_5b"]),
    ],
)
def test_a_published_net_is_tuned(
    name: str, freeze: list[str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, side = np.random.default_rng(0), 75 if name == "inception_v3" else 32
    for k, kind in enumerate(("dark", "light")):
        (tmp_path / "mine" / kind).mkdir(parents=True)
        for i in range(10):
            pixels = (100 * k + rng.integers(0, 100, (side, side, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / kind / f"{i}.png")
    file, out = tmp_path / "w.pth", tmp_path / "run"
    torchvision_file(name, file)
    asked = ["--data", "folder", "--root", str(tmp_path / "mine"), "--model", name, "--weights", str(file), "--epochs", "1"]
    asked += ["--freeze", *freeze, "--body-lr", "0.1", "--batch-size", "4", "--optimizer", "adamw", "--out", str(out)]
    assert example.main(asked) == 0
    printed = capsys.readouterr().out
    assert " answers 1,000 classes in the file and 2 in this net: it begins anew" in printed
    assert ("AuxLogits of the file is left out" in printed) is (name == "inception_v3")
    published, _ = weights.load_arrays(file)
    kept, _ = weights.load_arrays(out / "model.safetensors")
    if name.startswith("densenet"):
        published = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): a for key, a in published.items()}
    still = {key for key in kept if any(key.startswith(f"{layer}.") for layer in freeze)}
    assert still and all((kept[key] == published[key]).all() for key in still)
    assert sum((kept[key] != published[key]).any() for key in kept.keys() & published.keys() - still if a_weight(kept[key])) > 5


def a_weight(a: np.ndarray) -> bool:
    return a.ndim == 4


def test_heads_that_a_net_has_not(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--aux", "--out", str(tmp_path / "run")]) == 1
    assert "error: --aux: resnet8 has no auxiliary heads, expected one of googlenet, inception_v3" in capsys.readouterr().err


REAL = os.environ.get("MINIDL_TEST_DATA", "")


@pytest.mark.skipif(not REAL, reason="MINIDL_TEST_DATA names no folder with cifar-10-batches-bin")
def test_real_cifar(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--data", "cifar10", "--root", REAL, "--model", "resnet8", "--limit", "256", "--epochs", "1", "--batch-size", "64"]
    assert example.main([*asked, "--out", str(tmp_path)]) == 0
    assert "10 classes" in capsys.readouterr().out and all((tmp_path / name).exists() for name in IMAGES)


def test_a_batch_that_does_not_fit_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    def run(*args: object) -> None:
        with batch_in_memory(128):
            raise MemoryError("no room")

    monkeypatch.setattr(example, "run", run)
    assert example.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: a batch of 128 does not fit in memory: no room. Take a smaller")
