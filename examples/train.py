"""Train a small ResNet on images, and look at what it looks at.

    python examples/train.py

draws 10,000 images of skin lesions, benign and malignant, and trains `resnet8` to tell which is which, in a minute or two
on two cores. A line reports on every epoch: the first ones do no better than a coin, then the net finds out what to look for.
Then look into runs/lesions-resnet8:

    curves.png      loss and accuracy, drawn anew after every epoch
    roc.png         how well it orders the test images, which are looked at once, at the end
    calibration.png whether its probabilities mean what they say
    confusion.png   which class was taken for which
    card.md         what it is, on one page: data, figures with intervals, and what it must not be used for
    gradients.png   test images, and beside each the gradient of the predicted logit in its pixels: where more light makes
                    the net surer of its answer (red) or less sure (blue)

Press Ctrl-C at any time: the same command with --resume goes on after the last finished epoch. Other images:

    python examples/train.py --data cifar10 --model resnet20                 # fetches 170 MB into data/, if it is not there
    python examples/train.py --data folder --root my_images --size 32      # my_images/CLASS/*.png; or --size 24x32, HxW
    python examples/train.py --data medmnist --root pneumoniamnist.npz     # or csv, ham10000: see examples/sets.py

On several cores or machines, with MPI (pip install -e ".[mpi]"), each of 4 ranks taking its share of every batch:

    mpiexec -n 4 python examples/train.py --data cifar10 --model resnet20

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
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import outcome
from sets import DATA, Sets, load

import models
from minidl import explain, metrics, parallel, train, view
from minidl.arguments import one_of
from minidl.array import to_cpu
from minidl.data import Dataset
from minidl.io import files, lock
from minidl.mixed import PRECISIONS
from minidl.nn import Module
from minidl.train import FLIPS, Settings, TrainedNet
from minidl.train.scoring import summary
from minidl.train.settings import BALANCE, OPTIMIZERS, SELECT, STRENGTHS

# every constructor that can do without further arguments
MODELS = {name: getattr(models, name) for name in models.__all__}
MODELS = {name: f for name, f in MODELS.items() if all(p.default != p.empty for p in signature(f).parameters.values())}

IMAGES = ("curves.png", *outcome.FILES, "gradients.png")
DEFAULTS = {"model": "resnet8", "data": "lesions"}
RECIPES: dict[str, dict[str, Any]] = {  # where the data want other settings than the defaults of `Settings`
    "lesions": {"epochs": 8, "batch_size": 64, "lr": 0.05, "crop": 2, "flip": "both"},
    "cifar10": {},
    "cifar100": {"epochs": 30},
    "folder": {"epochs": 30, "batch_size": 32, "lr": 0.05},
    "csv": {"epochs": 30, "batch_size": 32, "lr": 0.05},
    "ham10000": {"epochs": 30, "batch_size": 64, "lr": 0.05, "flip": "both"},
    "medmnist": {"epochs": 15, "batch_size": 64, "lr": 0.05, "crop": 2},
}
ADAMW = {"lr": 1e-3, "weight_decay": 0.01}  # in place of those of SGD


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    asked = {name: value for name, value in vars(parser().parse_args(arguments)).items() if value is not None}
    resume = asked.pop("resume")
    out = pathlib.Path(asked.pop("out", "runs/{data}-{model}".format(**DEFAULTS | asked)))

    def locked() -> None:
        with parallel.world().block(lock.hold, out):
            run(asked, out, resume)

    def stopped() -> str:
        if not (out / "settings.json").exists():
            return "Stopped."
        command = f"python examples/train.py --resume --out {shlex.quote(str(out))}"
        return f"Stopped. To go on after the last finished epoch: {command}"

    return guard.guarded(locked, stopped)


def run(asked: dict[str, Any], out: pathlib.Path, resume: bool, sets: Sets | None = None) -> tuple[TrainedNet, Dataset]:
    """The net as everybody loads it, where the settings say, and the images that it was tested on. Of several ranks all train,
    and the first one does the rest.

    sets: in place of those that the settings load.
    """
    world = parallel.world()
    settings = world.first(choose, asked, out, resume)
    train_set, test_set, validation = sets or world.in_turn(load, settings)
    N, C, H, W = train_set.images.shape
    model = make(settings.model, len(train_set.classes), C, settings.seed, settings.aux)
    title = f"{settings.model} on {settings.data}"
    ranks = f", {world.size} ranks" * (world.size > 1)
    world.say(f"{title}: {sum(p.size for p in model.parameters()):,} parameters, {N:,} training and {len(test_set):,} test "
              f"images of {H}x{W}, {len(train_set.classes)} classes{range_of(train_set)}{ranks}; "
              f"everything goes into {out}")  # fmt: skip

    def after_epoch(rows: list[train.Row]) -> None:
        view.curves(out / "curves.png", rows, title)

    world.first(files.remove_leftovers, out, IMAGES)
    arguments = arguments_of(settings.model, len(train_set.classes), C, settings.aux)
    train.fit(model, train_set, settings, out, validation, resume, after_epoch, arguments)
    net = train.load_run(out, MODELS)
    net.model.to(settings.device)
    world.first(finish, out, title, net, settings, (train_set, test_set, validation))
    return net, test_set


def finish(
    out: pathlib.Path, title: str, net: TrainedNet, settings: Settings, sets: tuple[Dataset, Dataset, Dataset | None]
) -> None:
    """The test of a run, and what people look at."""
    _, test_set, _ = sets
    found = train.evaluate_run(out, MODELS, test_set, settings.device)
    outcome.write(out, title, net, settings, sets)
    look(net, test_set.take(np.arange(min(8, len(test_set)))), f"{title}: predictions, and their gradients", out)
    print(summary(found), *found["notes"], sep="\n")
    print(f"now look at {', '.join(str(out / name) for name in IMAGES)}")


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
    """Draw images and d logit / d image, of the image as it is. As x = (image - mean) / std, d x / d image is 1 / std."""
    images = dataset.images[:]  # which may be left on disk
    x = net.inputs(images)  # (N,C,H,W)
    p = metrics.probabilities(net.logits(x))  # (N,K)
    gx = to_cpu(explain.saliency(net.model, x).raw)  # (N,C,H,W)
    maps = (gx / np.asarray(net.contract.normalize_unit.std)[:, None, None]).sum(1)  # (N,H,W): all channels lighten together
    view.gradient_images(
        out / "gradients.png",
        net.contract.shown(images),
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


def size(text: str) -> int | tuple[int, int]:
    """48, or 12x20, which is HxW."""
    sides = text.lower().split("x")
    if not all(side.isdecimal() and int(side) for side in sides) or len(sides) > 2:
        raise argparse.ArgumentTypeError(f"expected pixels, such as 48, or HxW, such as 12x20, got {text!r}")
    H, W = int(sides[0]), int(sides[-1])
    return H if H == W else (H, W)


def factors(text: str) -> float | tuple[float, float]:
    """0.1, or 0.8,1.2, which is LOW,HIGH."""
    try:
        return float(text)
    except ValueError:
        return ends(text)


def ends(text: str) -> tuple[float, float]:
    """40,400, which is LOW,HIGH."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected LOW,HIGH, such as 40,400, got {text!r}") from None
    return low, high


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=MODELS, metavar="NAME", help=f"one of {', '.join(MODELS)}")
    p.add_argument("--data", choices=DATA, metavar="NAME", help=f"one of {', '.join(DATA)}")
    p.add_argument("--root", help="the folder that holds the data, or the file of csv and medmnist; by default data")
    p.add_argument("--size", type=size, metavar="HxW",
                   help="48 is 48x48: draw lesions, or resize files; by default 32, their own, 72x96 of ham10000")  # fmt: skip
    p.add_argument("--limit", type=int, help="take only LIMIT images of each set, for a quick try")
    p.add_argument("--epochs", type=int)
    p.add_argument("--batch-size", type=int)
    p.add_argument("--optimizer", choices=OPTIMIZERS)
    p.add_argument("--ema", type=float, metavar="DECAY",
                   help="judge and keep the moving average of the weights; 0.995, say, is over some 200 steps")  # fmt: skip
    p.add_argument("--lr", type=float, help="the highest learning rate of the one-cycle schedule; by default 0.001 of adamw")
    p.add_argument("--weight-decay", type=float)
    p.add_argument("--seed", type=int, help="of the initial weights, the order of the images and the augmentation")
    group = p.add_argument_group("how the files of a folder or a table are read")
    group.add_argument("--channels", type=int, choices=(1, 3, 4), help="convert them to grey, RGB or RGBA")
    group.add_argument("--page", type=int, help="which image of each file, from 0, where files hold several")
    group.add_argument("--window", type=ends, metavar="LOW,HIGH", help="the grey values that become black and white, of DICOM, "
                       "16 bits and floats; below 0 with =, such as --window=-160,240")  # fmt: skip
    group.add_argument("--groups", metavar="REGEX", help="finds in CLASS/FILE of a folder whom it shows, such as '/([0-9]+)_': "
                       "all images of a patient come to one side")  # fmt: skip
    group.add_argument("--lazy", action="store_const", const=True, help="leave them on disk, where they do not fit in memory")
    group = p.add_argument_group("what an image may become before the net learns from it")
    group.add_argument("--crop", type=int, metavar="PIXELS", help="by which it is shifted at most")
    group.add_argument("--flip", choices=FLIPS, help="by default horizontal, of lesions and ham10000 both")
    group.add_argument("--rotate", type=float, metavar="DEGREES", help="by which it is turned at most, either way")
    group.add_argument("--zoom", type=factors, metavar="SHARE", help="0.1 for factors of 0.9 to 1.1; or LOW,HIGH")
    group.add_argument("--colour", type=float, nargs="+", metavar="STRENGTH", help=f"of {', '.join(STRENGTHS)}, in this order")
    group.add_argument("--test-flips", action="store_const", const=True, help="ask the net by its mean logits over these "
                       "flips, in validation, test and ever after")  # fmt: skip
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
    p.add_argument("--sync-batch-norm", action="store_const", const=True, help="of several ranks: batch norm over the images "
                   "of all, not over those of each")  # fmt: skip
    p.add_argument("--device", choices=("cpu", "gpu"))
    p.add_argument("--precision", choices=PRECISIONS, help="of the activations in training; 16 bits take half the memory")
    p.add_argument("--cuda-graph", action="store_const", const=True, help="on a GPU, each step as one graph of kernels: sooner")
    p.add_argument("--out", help="the folder of this run; by default runs/DATA-MODEL")
    p.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    return p


if __name__ == "__main__":
    guard.script(main)
