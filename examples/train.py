"""Train a small ResNet on images, and look at what it looks at.

    python examples/train.py

draws 10,000 images of skin lesions, benign and malignant, and trains `resnet8` to tell which is which, in a minute or two
on two cores. A line reports on every epoch: the first ones do no better than a coin, then the net finds out what to look for.
Then look into runs/lesions-resnet8:

    curves.png      loss and accuracy, drawn anew after every epoch
    confusion.png   which class was taken for which
    gradients.png   test images, and beside each the gradient of the predicted logit in its pixels: where more light makes
                    the net surer of its answer (red) or less sure (blue)

Press Ctrl-C at any time: the same command with --resume goes on after the last finished epoch. Other images:

    python examples/train.py --data cifar10 --model resnet20                 # fetches 170 MB into data/, if it is not there
    python examples/train.py --data folder --root my_images --size 32      # my_images/CLASS/*.png
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
import shlex
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

import models
from minidl import data, explain, inference, metrics, train, view
from minidl.arguments import one_of
from minidl.array import to_cpu, to_device
from minidl.data import Dataset, Normalize
from minidl.io import files, lock
from minidl.mixed import PRECISIONS
from minidl.nn import Module
from minidl.train import Settings

# every constructor that can do without further arguments
MODELS = {name: getattr(models, name) for name in models.__all__}
MODELS = {name: f for name, f in MODELS.items() if all(p.default != p.empty for p in signature(f).parameters.values())}

IMAGES = ("curves.png", "confusion.png", "gradients.png")
DEFAULTS = {"model": "resnet8", "data": "lesions"}
RECIPES: dict[str, dict[str, Any]] = {  # where the data want other settings than the defaults of `Settings`
    "lesions": {"epochs": 8, "batch_size": 64, "lr": 0.05, "crop": 2, "flip": "both"},
    "cifar10": {},
    "cifar100": {"epochs": 30},
    "folder": {"epochs": 30, "batch_size": 32, "lr": 0.05},
}


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    asked = {name: value for name, value in vars(parser().parse_args(arguments)).items() if value is not None}
    resume = asked.pop("resume")
    out = pathlib.Path(asked.pop("out", "runs/{data}-{model}".format(**DEFAULTS | asked)))

    def locked() -> None:
        with lock.hold(out):
            run(asked, out, resume)

    def stopped() -> str:
        if not (out / "settings.json").exists():
            return "Stopped."
        command = f"python examples/train.py --resume --out {shlex.quote(str(out))}"
        return f"Stopped. To go on after the last finished epoch: {command}"

    return guard.guarded(locked, stopped)


def run(asked: dict[str, Any], out: pathlib.Path, resume: bool) -> None:
    settings = choose(asked, out, resume)
    train_set, test_set = load(settings)
    N, C, H, W = train_set.images.shape
    model = make(settings.model, len(train_set.classes), C, settings.seed)
    title = f"{settings.model} on {settings.data}"
    print(f"{title}: {sum(p.size for p in model.parameters()):,} parameters, {N:,} training and {len(test_set):,} test "
          f"images of {H}x{W}, {len(train_set.classes)} classes; everything goes into {out}")  # fmt: skip

    def after_epoch(rows: list[train.Row]) -> None:
        view.curves(out / "curves.png", rows, title)

    files.remove_leftovers(out, IMAGES)
    train.fit(model, train_set, test_set, settings, out, resume, after_epoch)

    normalize = Normalize(*train_set.mean_std())
    _, logits, labels = inference.evaluate(model, test_set, prepare=normalize)
    right = f"{metrics.accuracy(logits, labels):.1%} of the test images right"
    view.confusion(out / "confusion.png", metrics.confusion_matrix(logits, labels), test_set.classes, f"{title}\n{right}")
    look(model, test_set.take(np.arange(min(8, len(test_set)))), normalize, f"{title}: predictions, and their gradients", out)
    print(f"{right}; now look at {', '.join(str(out / name) for name in IMAGES)}")


def make(name: str, classes: int, channels: int, seed: int = 0) -> Module:
    """The net of that name, without auxiliary heads. Raises ValueError for an unknown name."""
    constructor = MODELS[one_of(name, "model", MODELS)]
    plain = {"aux": False} if "aux" in signature(constructor).parameters else {}
    return constructor(num_classes=classes, in_channels=channels, seed=seed, **plain)


def look(model: Module, dataset: Dataset, normalize: Normalize, title: str, out: pathlib.Path) -> None:
    """Draw images and d logit / d image. The net sees x = (image - mean) / std, so d x / d image is 1 / std."""
    x = to_device(normalize(dataset.images), model.parameters()[0].device)  # (N,C,H,W)
    logits, gx = to_cpu(inference.predict(model, x)), to_cpu(explain.saliency(model, x).raw)  # (N,K) (N,C,H,W)
    maps = (gx / np.asarray(normalize.std)[:, None, None]).sum(1)  # (N,H,W): all channels lighten together
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)  # softmax
    view.gradient_images(
        out / "gradients.png",
        dataset.images,
        maps,
        dataset.labels,
        p,
        dataset.classes,
        title,
    )


def choose(asked: dict[str, Any], out: pathlib.Path, resume: bool) -> Settings:
    """What was asked for; for the rest the recipe for these data or, when resuming, what the run began with."""
    if resume:
        begun = Settings.of_run(out)
        try:
            one_of(begun.model, "model", MODELS), one_of(begun.data, "data", DATA)
        except ValueError as error:
            raise ValueError(f"{out / 'settings.json'}: not of a run of this script; {error}") from error
        settings = replace(begun, **asked)
        settings.continues(begun)
        return settings
    asked = DEFAULTS | asked
    return Settings(**RECIPES[asked["data"]] | asked)


def load(settings: Settings) -> tuple[Dataset, Dataset]:
    """Training and test images. Raises ValueError for unknown data."""
    if settings.size is not None and settings.data.startswith("cifar"):
        raise ValueError(f"--size {settings.size}: the images of {settings.data} are 32x32")
    train_set, test_set = DATA[one_of(settings.data, "data", DATA)](settings)
    if settings.limit is not None:
        train_set, test_set = (d.take(np.arange(min(settings.limit, len(d)))) for d in (train_set, test_set))
    return train_set, test_set


def lesions(settings: Settings) -> tuple[Dataset, Dataset]:
    train_count, test_count = (min(n, settings.limit or n) for n in (8000, 2000))
    size = settings.size or 32
    return data.lesions(train_count, size, seed=0), data.lesions(test_count, size, seed=1)


def cifar10(settings: Settings) -> tuple[Dataset, Dataset]:
    return data.cifar10(settings.root, download=True), data.cifar10(settings.root, train=False)


def cifar100(settings: Settings) -> tuple[Dataset, Dataset]:
    return data.cifar100(settings.root, download=True), data.cifar100(settings.root, train=False)


def folder(settings: Settings) -> tuple[Dataset, Dataset]:
    """ROOT/train/CLASS and ROOT/test/CLASS or, with ROOT/CLASS alone, a fifth of the images to test; in random order."""
    root, size = pathlib.Path(settings.root), None if settings.size is None else (settings.size, settings.size)
    if (root / "train").is_dir() and (root / "test").is_dir():
        (train_set,), (test_set,) = (data.image_folder(root / part, size).split([1.0]) for part in ("train", "test"))
        return train_set, test_set
    train_set, test_set = data.image_folder(root, size).split([0.8, 0.2])
    return train_set, test_set


DATA: dict[str, Callable[[Settings], tuple[Dataset, Dataset]]] = {
    "lesions": lesions,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "folder": folder,
}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=MODELS, metavar="NAME", help=f"one of {', '.join(MODELS)}")
    p.add_argument("--data", choices=DATA, metavar="NAME", help=f"one of {', '.join(DATA)}")
    p.add_argument("--root", help="the folder that holds the data; by default data")
    p.add_argument("--size", type=int, help="pixels: draw lesions, or resize the images of a folder, to SIZE x SIZE")
    p.add_argument("--limit", type=int, help="take only the first LIMIT images of each set, for a quick try")
    p.add_argument("--epochs", type=int)
    p.add_argument("--batch-size", type=int)
    p.add_argument("--lr", type=float, help="the highest learning rate of the one-cycle schedule")
    p.add_argument("--weight-decay", type=float)
    p.add_argument("--seed", type=int, help="of the initial weights, the order of the images and the augmentation")
    p.add_argument("--device", choices=("cpu", "gpu"))
    p.add_argument("--precision", choices=PRECISIONS, help="of the activations in training; 16 bits take half the memory")
    p.add_argument("--cuda-graph", action="store_const", const=True, help="on a GPU, each step as one graph of kernels: sooner")
    p.add_argument("--out", help="the folder of this run; by default runs/DATA-MODEL")
    p.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    return p


if __name__ == "__main__":
    guard.script(main)
