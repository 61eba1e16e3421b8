"""Train a small ResNet on images, and look at what it looks at.

    python examples/train.py

draws 10,000 images of skin lesions, benign and malignant, and trains `resnet8` to tell which is which, in a minute or two
on two cores. A line reports on every epoch: the first ones do no better than a coin, then the net finds out what to look for.
Then look into runs/lesions-resnet8:

    curves.png      loss and accuracy, drawn anew after every epoch
    confusion.png   which class was taken for which in the test images, which are looked at once, at the end
    gradients.png   test images, and beside each the gradient of the predicted logit in its pixels: where more light makes
                    the net surer of its answer (red) or less sure (blue)

Press Ctrl-C at any time: the same command with --resume goes on after the last finished epoch. Other images:

    python examples/train.py --data cifar10 --model resnet20                 # fetches 170 MB into data/, if it is not there
    python examples/train.py --data folder --root my_images --size 32      # my_images/CLASS/*.png; or --size 24x32, HxW

Few images of classes of different sizes, and a net that was trained on others before:

    python examples/train.py --data folder --root my_images --size 64 --model resnet18 --weights resnet18.pth --freeze layer1 \\
        --body-lr 0.1 --validation 0.15 --balance sample --select auc --patience 5 --optimizer adamw
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
from minidl.array import to_cpu
from minidl.data import Dataset
from minidl.io import files, lock
from minidl.mixed import PRECISIONS
from minidl.nn import Module
from minidl.train import Settings, TrainedNet
from minidl.train.settings import BALANCE, OPTIMIZERS, SELECT

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
ADAMW = {"lr": 1e-3, "weight_decay": 0.01}  # in place of those of SGD


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
    model = make(settings.model, len(train_set.classes), C, settings.seed, settings.aux)
    title = f"{settings.model} on {settings.data}"
    print(f"{title}: {sum(p.size for p in model.parameters()):,} parameters, {N:,} training and {len(test_set):,} test "
          f"images of {H}x{W}, {len(train_set.classes)} classes{range_of(train_set)}; "
          f"everything goes into {out}")  # fmt: skip

    def after_epoch(rows: list[train.Row]) -> None:
        view.curves(out / "curves.png", rows, title)

    files.remove_leftovers(out, IMAGES)
    arguments = arguments_of(settings.model, len(train_set.classes), C, settings.aux)
    train.fit(model, train_set, settings, out, None, resume, after_epoch, arguments)
    found = train.evaluate_run(out, MODELS, test_set, settings.device)

    net = train.load_run(out, MODELS)  # as everybody loads it from now on
    net.model.to(settings.device)
    right = f"{found['accuracy']:.1%} of the test images right (always the largest class: {found['majority_accuracy']:.1%})"
    right += f", balanced {found['balanced_accuracy']:.1%}" + (f", AUC {found['auc']:.3f}" if "auc" in found else "")
    view.confusion(out / "confusion.png", np.array(found["confusion"]), test_set.classes, f"{title}\n{right}")
    look(net, test_set.take(np.arange(min(8, len(test_set)))), f"{title}: predictions, and their gradients", out)
    print(f"{right}; now look at {', '.join(str(out / name) for name in IMAGES)}")


def range_of(dataset: Dataset) -> str:
    """The least and the largest of its numbers, where these are no bytes."""
    x = dataset.images
    return "" if x.dtype == np.uint8 else f", {x.dtype} from {x.min():.4g} to {x.max():.4g}"


def make(name: str, classes: int, channels: int, seed: int = 0, aux: bool = False) -> Module:
    """The net of that name. Raises ValueError for an unknown name, and for auxiliary heads that it cannot have."""
    return MODELS[one_of(name, "model", MODELS)](**arguments_of(name, classes, channels, aux), seed=seed)


def arguments_of(name: str, classes: int, channels: int, aux: bool = False) -> dict[str, Any]:
    """What the net of that name is made with, but for its seed."""
    has_heads = "aux" in signature(MODELS[name]).parameters
    if aux and not has_heads:
        raise ValueError(f"--aux: {name} has no auxiliary heads, expected one of {', '.join(with_heads())}")
    return {"num_classes": classes, "in_channels": channels, **({"aux": aux} if has_heads else {})}


def with_heads() -> list[str]:
    """The nets that can have auxiliary heads."""
    return [name for name, f in MODELS.items() if "aux" in signature(f).parameters]


def look(net: TrainedNet, dataset: Dataset, title: str, out: pathlib.Path) -> None:
    """Draw images and d logit / d image. The net sees x = (image - mean) / std, so d x / d image is 1 / std."""
    x = net.inputs(dataset.images)  # (N,C,H,W)
    p = metrics.probabilities(inference.predict(net.model, x))  # (N,K)
    gx = to_cpu(explain.saliency(net.model, x).raw)  # (N,C,H,W)
    maps = (gx / np.asarray(net.contract.normalize_unit.std)[:, None, None]).sum(1)  # (N,H,W): all channels lighten together
    view.gradient_images(
        out / "gradients.png",
        net.contract.shown(dataset.images),
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
    return Settings(**RECIPES[asked["data"]] | (ADAMW if asked.get("optimizer") == "adamw" else {}) | asked)


def load(settings: Settings) -> tuple[Dataset, Dataset]:
    """Training and test images. Raises ValueError for unknown data."""
    if settings.size is not None and settings.data.startswith("cifar"):
        raise ValueError(f"--size {size_text(settings.size)}: the images of {settings.data} are 32x32")
    for name in ("channels", "page"):
        if (value := getattr(settings, name)) is not None and settings.data != "folder":
            raise ValueError(f"--{name} {value}: it is for --data folder alone, not for {settings.data}")
    train_set, test_set = DATA[one_of(settings.data, "data", DATA)](settings)
    if settings.limit is not None:
        train_set, test_set = (d.take(np.arange(min(settings.limit, len(d)))) for d in (train_set, test_set))
    return train_set, test_set


def lesions(settings: Settings) -> tuple[Dataset, Dataset]:
    train_count, test_count = (min(n, settings.limit or n) for n in (8000, 2000))
    size = settings.size or 32
    if isinstance(size, tuple):
        raise ValueError(f"--size {size_text(size)}: lesions are drawn square, such as --size 48")
    return data.lesions(train_count, size, seed=0), data.lesions(test_count, size, seed=1)


def cifar10(settings: Settings) -> tuple[Dataset, Dataset]:
    return data.cifar10(settings.root, download=True), data.cifar10(settings.root, train=False)


def cifar100(settings: Settings) -> tuple[Dataset, Dataset]:
    return data.cifar100(settings.root, download=True), data.cifar100(settings.root, train=False)


def folder(settings: Settings) -> tuple[Dataset, Dataset]:
    """ROOT/train/CLASS and ROOT/test/CLASS or, with ROOT/CLASS alone, a fifth of the images to test; in random order."""
    root, size = pathlib.Path(settings.root), settings.size
    size = (size, size) if isinstance(size, int) else size
    form = {"size": size, "channels": settings.channels, "page": settings.page}
    if (root / "train").is_dir() and (root / "test").is_dir():
        (train_set,), (test_set,) = (data.image_folder(root / part, **form).split([1.0]) for part in ("train", "test"))
        return train_set, test_set
    train_set, test_set = data.image_folder(root, **form).split([0.8, 0.2], stratify=True)
    return train_set, test_set


DATA: dict[str, Callable[[Settings], tuple[Dataset, Dataset]]] = {
    "lesions": lesions,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "folder": folder,
}


def size(text: str) -> int | tuple[int, int]:
    """48, or 12x20, which is HxW."""
    sides = text.lower().split("x")
    if not all(side.isdecimal() and int(side) for side in sides) or len(sides) > 2:
        raise argparse.ArgumentTypeError(f"expected pixels, such as 48, or HxW, such as 12x20, got {text!r}")
    H, W = int(sides[0]), int(sides[-1])
    return H if H == W else (H, W)


def size_text(size: int | tuple[int, int]) -> str:
    return f"{size}" if isinstance(size, int) else "{}x{}".format(*size)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=MODELS, metavar="NAME", help=f"one of {', '.join(MODELS)}")
    p.add_argument("--data", choices=DATA, metavar="NAME", help=f"one of {', '.join(DATA)}")
    p.add_argument("--root", help="the folder that holds the data; by default data")
    p.add_argument("--size", type=size, metavar="HxW",
                   help="48 is 48x48: draw lesions, or resize a folder's images; by default 32, their own")  # fmt: skip
    p.add_argument("--channels", type=int, choices=(1, 3, 4), help="convert the images of a folder to grey, RGB or RGBA")
    p.add_argument("--page", type=int, help="which image of each file of a folder, from 0, where files hold several")
    p.add_argument("--limit", type=int, help="take only the first LIMIT images of each set, for a quick try")
    p.add_argument("--epochs", type=int)
    p.add_argument("--batch-size", type=int)
    p.add_argument("--optimizer", choices=OPTIMIZERS)
    p.add_argument("--lr", type=float, help="the highest learning rate of the one-cycle schedule; by default 0.001 of adamw")
    p.add_argument("--weight-decay", type=float)
    p.add_argument("--seed", type=int, help="of the initial weights, the order of the images and the augmentation")
    group = p.add_argument_group("which epoch is kept, and what classes of different sizes do")
    group.add_argument("--validation", type=float, metavar="SHARE", help="of the training images, held out of the training")
    group.add_argument(
        "--select", choices=SELECT, help="keep the weights of the epoch that is the best on them; by default last"
    )
    group.add_argument("--target", metavar="CLASS", help="the class that must not be missed; by default of two the second")
    group.add_argument(
        "--sensitivity", type=float, metavar="SHARE", help="of it, wanted on them; by default it and specificity add up to most"
    )
    group.add_argument("--patience", type=int, metavar="EPOCHS", help="stop after so many that were no better")
    group.add_argument(
        "--balance", choices=BALANCE, help="weights in the loss, or as many draws of each class; by default none"
    )
    group = p.add_argument_group("a net that was trained before")
    group.add_argument("--weights", metavar="FILE", help="begin with these, as safetensors or as PyTorch writes them")
    group.add_argument("--key", help="the entry of a PyTorch checkpoint that holds them, where there are several")
    group.add_argument("--prefix", help="what their names begin with there, such as module.")
    group.add_argument("--freeze", nargs="+", metavar="LAYER", help="layers that stay as they are, such as conv1 bn1 layer1")
    group.add_argument("--body-lr", type=float, metavar="FACTOR", help="of the learning rate, for all but the last layer")
    group.add_argument("--aux", action="store_const", const=True, help=f"with auxiliary heads: {', '.join(with_heads())}")
    p.add_argument("--device", choices=("cpu", "gpu"))
    p.add_argument("--precision", choices=PRECISIONS, help="of the activations in training; 16 bits take half the memory")
    p.add_argument("--cuda-graph", action="store_const", const=True, help="on a GPU, each step as one graph of kernels: sooner")
    p.add_argument("--out", help="the folder of this run; by default runs/DATA-MODEL")
    p.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    return p


if __name__ == "__main__":
    guard.script(main)
