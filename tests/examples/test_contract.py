"""A net decides in every example as it did in training, to the bit, whatever its images: their depth, channels and size."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import common
import fooling
import linearity
import numpy as np
import perturbation
import pytest
import report
import saliency
import step
import train as training
from PIL import Image

import models.net
from minidl import Tensor, attack, data, inference
from minidl.array import Array
from minidl.data import Dataset
from minidl.data.reading import as_held
from minidl.train import Settings, fit, load_run

Kind = tuple[str, int, tuple[int, int]]  # dtype, channels, (H, W)

DTYPES, CHANNELS, SIZES = ("uint8", "uint16", "float32"), (1, 3, 5), ((48, 48), (12, 20))
KINDS: list[Kind] = [(dtype, channels, size) for dtype in DTYPES for channels in CHANNELS for size in SIZES]
DRAWN: list[Kind] = [
    ("uint8", 1, (48, 48)),
    ("uint8", 3, (12, 20)),
    ("uint16", 1, (12, 20)),
    ("uint16", 3, (48, 48)),
    ("float32", 5, (12, 20)),
    ("float32", 1, (48, 48)),
]
EXAMPLES: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "saliency": (saliency.main, ["--masks", "4", "--count", "12"]),
    "perturbation": (perturbation.main, ["--iterations", "2"]),
    "step": (step.main, ["--no-open", "--number", "0", "--pixels", "0"]),
    "fooling": (fooling.main, []),
    "linearity": (linearity.main, []),
    "report": (lambda asked: report.main([word for word in asked if word != "--image"]), ["--samples", "4"]),
}
LOWEST = {"uint8": 0, "uint16": 0, "float32": -1000}
WHITE = {"uint8": 255, "uint16": 4095, "float32": 1000}  # 12 of 16 bits, and CT numbers


def named(kind: Kind) -> str:
    dtype, channels, (H, W) = kind
    return f"{dtype}, {channels} channels, {H}x{W}"


class Asked(NamedTuple):
    """What a model was given, and what it answered: x (N,C,H,W), logits (N,K)"""

    x: Array
    logits: Array


@contextlib.contextmanager
def listening() -> Iterator[list[Asked]]:
    """Inside, whatever a net is given in evaluation and answers is written down."""
    asked, call = list[Asked](), models.net.Net.__call__

    def heard(self: models.net.Net, x: Tensor | Array) -> Tensor:
        y = call(self, x)
        if not self.training:
            asked.append(Asked(np.array(x.data if isinstance(x, Tensor) else x), np.array(y.data)))
        return y

    models.net.Net.__call__ = heard  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        models.net.Net.__call__ = call  # type: ignore[method-assign]


def logits_for(x: Array, asked: list[Asked]) -> Array | None:
    """What was answered to this one image x (C,H,W), the same to the bit; None where nobody asked."""
    found = [a.logits[n] for a in asked for n, one in enumerate(a.x) if one.tobytes() == x.tobytes()]
    return found[0] if found else None


def pixels_of(kind: Kind, label: int, seed: int) -> Array:
    """(H,W,C): faint stripes of one pixel, down or across, in noise: what resizing, or 8 bits for 16, would take away."""
    dtype, channels, (H, W) = kind
    rng = np.random.default_rng(seed)
    stripes = np.indices((H, W))[label] % 2
    share = (
        0.5 + 0.08 * (stripes - 0.5)[..., None] + 0.02 * rng.standard_normal((H, W, channels)) + 0.02 * rng.standard_normal()
    )
    share[0, 0], share[0, 1] = 0, 1
    return np.rint(LOWEST[dtype] + (WHITE[dtype] - LOWEST[dtype]) * share.clip(0, 1)).astype(dtype)


class Trained(NamedTuple):
    run: pathlib.Path
    files: list[str]
    asked: list[Asked]  # in the last evaluation of the training, all its batches as one
    batch_size: int  # of that evaluation
    test_set: Dataset


def trained(kind: Kind, folder: pathlib.Path, epochs: int = 6) -> Trained:
    """A net for such images, and a file for each of the test images."""
    sets, files = [], list[str]()
    for name, count, first in ("train", 48, 0), ("test", 12, 1000):
        images = [pixels_of(kind, n % 2, first + n) for n in range(count)]
        sets.append(
            Dataset(np.stack([as_held(image, None) for image in images]), np.arange(count) % 2, ("down", "across"), {}, name)
        )
    for n, image in enumerate(images):
        files.append(written(image, folder / f"{n}"))
    settings = Settings(epochs=epochs, batch_size=8, lr=0.05, crop=0, flip="none", model="resnet8", data="stripes")
    with listening() as asked:
        fit(training.make("resnet8", 2, kind[1]), sets[0], settings, folder / "run", sets[1])
    first = len(asked)
    while sum(len(a.x) for a in asked[first:]) < len(files):
        first -= 1
    x, logits = (np.concatenate(arrays) for arrays in zip(*asked[first:], strict=True))
    return Trained(folder / "run", files, [Asked(x, logits)], len(asked[first].x), sets[1])


def written(image: Array, path: pathlib.Path) -> str:
    """As PNG where that holds it, else as an array."""
    C = image.shape[2]
    if C in {"uint8": (1, 3), "uint16": (1,), "float32": ()}[image.dtype.name]:
        Image.fromarray(image[..., 0] if C == 1 else image).save(f"{path}.png")
        return f"{path}.png"
    np.save(f"{path}.npy", image)
    return f"{path}.npy"


def loaded(*arguments: str) -> common.Loaded:
    parser = argparse.ArgumentParser()
    common.add_arguments(parser)
    return common.load(parser.parse_args(arguments))


@pytest.mark.parametrize(
    "kind", [KINDS[0], KINDS[7], KINDS[17], *(pytest.param(k, marks=pytest.mark.ci) for k in KINDS)], ids=named
)
def test_x_and_logits_are_those_of_the_training(kind: Kind, tmp_path: pathlib.Path) -> None:
    """x to the bit; the logits, too, where a batch holds the same images, else within 1e-5 of the largest."""
    it = trained(kind, tmp_path, epochs=1)
    (evaluated,) = it.asked
    some = loaded("--run", str(it.run), "--image", *it.files)
    x = some.inputs(some.images)
    assert x.tobytes() == evaluated.x.tobytes() == some.net.prepare(*it.files).tobytes()
    logits = inference.predict(some.model, x, it.batch_size)
    assert logits.tobytes() == evaluated.logits.tobytes()
    _, again, _ = inference.evaluate(some.model, it.test_set, it.batch_size, some.contract.normalize)
    assert again.tobytes() == evaluated.logits.tobytes()
    largest = np.abs(evaluated.logits).max()
    for batch_size in 1, 5:
        others = inference.predict(some.model, x, batch_size)
        assert np.abs(others - evaluated.logits).max() <= 1e-5 * largest
        margin = np.ptp(evaluated.logits, axis=1) > 2e-5 * largest
        assert (others.argmax(1) == evaluated.logits.argmax(1))[margin].all() and margin.any()


@pytest.mark.ci
@pytest.mark.parametrize(
    "kind", [*DRAWN, *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k not in DRAWN)], ids=named
)
def test_every_example_decides_as_in_training(
    kind: Kind, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]
) -> None:
    it = trained(kind, tmp_path)
    (evaluated,) = it.asked
    decided = evaluated.logits.argmax(1)
    right = (decided == it.test_set.labels).mean()
    assert right > 0.9, "the task is one that a net learns"
    cells = []
    for name, (main, more) in EXAMPLES.items():
        few = (
            1 if name == "step" else 12 if (name, kind) == ("fooling", DRAWN[2]) else 4
        )  # from ten on it counts answers over eps
        files = it.files[:few]
        out = tmp_path / name / ("step.html" if name == "step" else "")
        with listening() as asked:
            assert main(["--run", str(it.run), "--image", *files, *more, "--out", str(out)]) == 0, capsys.readouterr().err
        found = [logits_for(x, asked) for x in evaluated.x[: len(files)]]
        assert all(logits is not None for logits in found), f"{name} asks about other images than those of the training"
        same = np.mean([logits.argmax() for logits in found] == decided[: len(files)])  # type: ignore[union-attr]
        cells.append(f"{name} {same:.0%}")
        assert same == 1
    tell(f"{named(kind)}: {right:.0%} right in training; decided as there: {', '.join(cells)}")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_attacks_stay_in_the_range_of_the_images(dtype: str, tmp_path: pathlib.Path) -> None:
    """8 grey levels of 255 are 8/255 from black to white, of 12 bits and of CT numbers as of 8 bits."""
    it = trained((dtype, 1, (12, 20)), tmp_path, epochs=1)
    some = loaded("--run", str(it.run), "--image", *it.files)
    u = some.contract.unit(some.images)
    assert (u.min(), u.max()) == (0, 1) == fooling.bounds_of(u) and fooling.bounds_of(2 * u - 0.5) == (-0.5, 1.5)
    found = attack.fgsm(some.model, u, eps=8 / 255, **fooling.settings_of(some))
    np.testing.assert_allclose(found.before, it.asked[0].logits, rtol=1e-3, atol=1e-4)
    assert np.abs(found.x - u).max() == pytest.approx(8 / 255) and found.x.min() >= 0 and found.x.max() <= 1
    answers = fooling.answers_to(some, some.images)
    assert (answers == it.asked[0].logits.argmax(1)).all() and (fooling.answers_in_range(some, u) == answers).all()
    assert some.shown.min() == 0 and some.shown.max() == 1  # and none is drawn black


# ---- from the command line


def folder_of(kind: Kind, root: pathlib.Path, count: int = 20, size_of: Callable[[int], tuple[int, int]] | None = None) -> str:
    for n in range(count):
        folder = root / ("down", "across")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        dtype, channels, size = kind
        written(pixels_of((dtype, channels, size_of(n) if size_of else size), n % 2, n), folder / f"{n}")
    return str(root)


@pytest.mark.parametrize("kind", [("uint8", 3, (48, 48)), ("uint16", 1, (12, 20))], ids=named)
def test_a_folder_without_a_size(kind: Kind, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own size is that of the net, and the depth too."""
    root, out = folder_of(kind, tmp_path / "mine"), str(tmp_path / "run")
    few = ["--epochs", "1", "--batch-size", "8", "--out", out]
    with listening() as asked:
        assert training.main(["--data", "folder", "--root", root, *few]) == 0, capsys.readouterr().err
    dtype, channels, (H, W) = kind
    contract = load_run(out, training.MODELS).contract
    assert (contract.height, contract.width, contract.levels) == (H, W, WHITE[dtype])
    files = sorted(pathlib.Path(root).rglob("*.png"))
    some = loaded("--run", out, "--image", *map(str, files))
    assert some.images.shape == (20, channels, H, W)
    in_training = [one for x in some.inputs(some.images) if (one := logits_for(x, asked)) is not None]
    assert len(in_training) == 4  # the test images, a fifth
    other = load_run(out, training.MODELS).prepare(np.zeros((30, 31, channels), dtype))
    assert other.shape == (1, channels, H, W)


def test_sizes_on_the_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind: Kind = ("uint8", 1, (14, 18))
    root, out = folder_of(kind, tmp_path / "mine", size_of=lambda n: (14 + n % 3, 18)), tmp_path / "run"
    few = ["--data", "folder", "--root", root, "--epochs", "1", "--batch-size", "8", "--out", str(out)]
    assert training.main(few) == 1
    assert "--size" in capsys.readouterr().err and not out.exists()
    assert training.main([*few, "--size", "12x20"]) == 0
    assert "of 12x20, 2 classes" in capsys.readouterr().out
    assert training.main(["--resume", "--out", str(out)]) == 0
    assert training.main(["--resume", "--out", str(out), "--size", "12X20"]) == 0
    assert training.main(["--resume", "--out", str(out), "--size", "20x12"]) == 1
    assert "size was [12, 20] and now is [20, 12]" in capsys.readouterr().err
    file = next(str(f) for f in pathlib.Path(root).rglob("*.png"))
    some = loaded("--run", str(out), "--image", file)
    assert (some.images[0] == data.load_image(file, (12, 20), 1)).all()
    assert loaded("--run", str(out), "--image", file, "--size", "32").images.shape == (1, 1, 32, 32)
    for wrong in "0", "12x", "12x0", "1x2x3", "-3", "big":
        with pytest.raises(SystemExit):
            training.parser().parse_args([f"--size={wrong}"])
        assert "expected pixels, such as 48, or HxW, such as 12x20" in capsys.readouterr().err
    assert training.parser().parse_args(["--size", "48x48"]).size == 48
    assert training.main(["--size", "32x48", "--out", str(tmp_path / "other")]) == 1
    assert "--size 32x48: lesions are drawn square" in capsys.readouterr().err


def test_another_depth_is_refused(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    it = trained(("uint16", 1, (12, 20)), tmp_path, epochs=1)
    bits8 = written(pixels_of(("uint8", 1, (12, 20)), 0, 0), tmp_path / "bits8")
    for main, more in EXAMPLES.values():
        assert main(["--run", str(it.run), "--image", bits8, *more, "--out", str(tmp_path / "out")]) == 1
        assert "bits8.png: expected pixels like those that the net was trained on" in capsys.readouterr().err
