"""Benign or malignant? A net for dermoscopic images of skin lesions, its operating point, and the cancers that it misses.

    python examples/skin_cancer.py --root HAM10000 --weights resnet20-12fca82f.th --key state_dict --prefix module.

After Esteva et al. 2017, "Dermatologist-level classification of skin cancer with deep neural networks", as far as two cores
come in an hour. `--root` is the folder of HAM10000, see `minidl.data.ham10000`. The weights are those of a ResNet-20 for
CIFAR-10 from github.com/akamaster/pytorch_resnet_cifar10; without them the net begins from scratch.

A net that is asked for the diagnosis has to look closer than one that is asked for benign or malignant alone. So there are two
trainings: `FIRST` has two heads, malignant and diagnosis, which is one of seven (Esteva et al. learn 757, and add up). `THEN`
begins with its weights and asks for malignant alone.

All images of a lesion are on one side of the split. Some lesions are held out of both trainings. By them the epoch is chosen,
and then the temperature and the operating point: the threshold of the probability of "malignant" with the largest sensitivity +
specificity or, with `--sensitivity`, with the largest specificity among those that find that share of their cancers. The test
lesions are scored once. The second training is that of `examples/train.py` with the settings `RECIPE`, so runs/skin_cancer
holds what every run does (roc.png, calibration.png, confusion.png, predictions.csv, card.md, the net), and

    first/          the first training

    evidence.png    lesions over the whole range of answers, and what speaks for and against "malignant" in them
    missed.png      the missed cancers, the surest mistakes first, with the same maps
    alarms.png      the surest of the false alarms

The same command goes on where it was stopped. `predict.py` and `report.py` take the run as any other.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
import shlex
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import train as training  # examples/train.py
from sets import Sets, load

from minidl import explain, train, view
from minidl.array import Array, to_cpu
from minidl.data import Dataset
from minidl.explain import Explanation
from minidl.inference.heads import width
from minidl.io import lock
from minidl.train import Settings, TrainedNet
from minidl.train.predictions import Predictions
from minidl.view import figure
from minidl.view.shares import probability

RECIPE: dict[str, Any] = {
    "model": "resnet20",
    "data": "ham10000",
    "size": (60, 80),
    "batch_size": 32,
    "crop": 5,
    "flip": "both",
    "rotate": 180.0,
    "zoom": (0.8, 1.25),
    "colour": (0.15, 0.15, 0.15),
    "ema": 0.997,
    "test_flips": True,
    "select": "auc",
}
FIRST = {"epochs": 30, "lr": 0.02}
THEN = {"epochs": 6, "lr": 0.005}
HELD_OUT = 0.15  # of the lesions that are not tested
SHOWN = 8  # images on a page
MAPS: dict[str, Callable[..., Explanation]] = {  # of the margin: what speaks for "malignant" (red), and against it (blue)
    "LRP": explain.lrp,
    "occlusion": partial(explain.occlusion, window=12, stride=6),
    "Grad-CAM": explain.grad_cam,
}
CLAIM = """Is the net as good as a dermatologist? This study does not tell. It would take

- dermatologists who judge the same images, and others who have what a practice has: the patient, the history, touch, a biopsy;
- images from other clinics, cameras and skins than those that it learned from, for there a net loses;
- lesions as they come, few of them malignant. Those of HAM10000 were all found worth an image, and few are on dark skin;
- a threshold that was fixed before, and a count of the patients who were helped by it, and of those who were harmed."""


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    out = pathlib.Path(args.out)

    def run() -> None:
        with lock.hold(out):
            study(args, out)

    return guard.guarded(
        run, lambda: f"Stopped. The same command goes on after the last finished epoch of {shlex.quote(args.out)}."
    )


def study(args: argparse.Namespace, out: pathlib.Path) -> None:
    def given(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(args, name)) is not None}

    asked = RECIPE | given("root", "model", "size", "limit", "seed", "device")
    epochs = args.epochs or [FIRST["epochs"], THEN["epochs"]]
    first = Settings(**asked | FIRST | {"epochs": epochs[0]} | given("weights", "key", "prefix"))
    both = lesions(first)
    learn(first, both, out / "first")
    then = asked | THEN | {"epochs": epochs[1], "weights": str(out / "first" / "model.safetensors")} | given("sensitivity")
    sets = Sets(*(d.head("malignant") for d in both if d is not None))
    net, test_set = training.run(then, out, (out / "settings.json").exists(), sets)
    said = Predictions.read(out / "predictions.csv", net.classes)
    target = net.classes.index("malignant")
    cancers, flagged, p = said.labels == target, said.decisions == target, said.p[:, target]
    missed, alarms = np.flatnonzero(cancers & ~flagged), np.flatnonzero(~cancers & flagged)
    spread = np.argsort(p)[np.linspace(0, len(p) - 1, SHOWN).astype(int)]
    for name, found, title in (
        (
            "evidence.png",
            spread,
            "From the least to the most suspicious: what speaks for malignant (red), and against it (blue)",
        ),
        ("missed.png", missed[np.argsort(p[missed])], f"{len(missed)} of {cancers.sum()} cancers are missed"),
        ("alarms.png", alarms[np.argsort(-p[alarms])], f"{len(alarms)} of {(~cancers).sum()} benign lesions are flagged"),
    ):
        if len(found):
            page(out / name, net, test_set.take(found[:SHOWN]), p[found[:SHOWN]], target, title)
            print(f"{out / name}: {title}")
    print(CLAIM)


def lesions(settings: Settings) -> Sets:
    """Of two heads, malignant and diagnosis; those that are held out have their share of every diagnosis."""
    images, test_set, _ = load(settings, labels=HEADS)
    train_set, validation = images.split([1 - HELD_OUT, HELD_OUT], settings.seed, stratify="diagnosis")
    return Sets(train_set, test_set, validation)


def learn(settings: Settings, both: Sets, out: pathlib.Path) -> None:
    """The first training, in the folder `out`."""
    logits, channels = width(both.train.classes), both.train.images.shape[1]
    model = training.make(settings.model, logits, channels, settings.seed)
    print(f"first: which of {len(both.train.classes['diagnosis'])} diagnoses, and malignant or not, in {out}", flush=True)
    begun, arguments = (out / "settings.json").exists(), training.arguments_of(settings.model, logits, channels)
    train.fit(model, both.train, settings, out, both.validation, begun, arguments=arguments)
    print(f"then: malignant or not, with the weights of {out}", flush=True)


def page(path: pathlib.Path, net: TrainedNet, shown: Dataset, p: Array, target: int, title: str) -> None:
    """The images (N,C,H,W) down, and across the maps of class `target`, of which p are the probabilities (N,)."""
    x = net.inputs(shown.images)
    maps = {name: to_cpu(f(net.model, x, target, output="margin").map) for name, f in MAPS.items()}
    assert shown.names is not None
    captions = [
        f"{figure.name(name, 16)}\n{shown.classes[label]}, p {probability(share)}"
        for name, label, share in zip(shown.names, shown.labels, p, strict=True)
    ]
    view.comparison(path, net.contract.shown(shown.images), maps, captions, title, scale="image")


HEADS = ("malignant", "diagnosis")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--root", required=True, help="the folder of HAM10000")
    p.add_argument("--weights", metavar="FILE", help="begin with these; without them, from scratch")
    p.add_argument("--key", help="the entry of that file that holds them, where there are several")
    p.add_argument("--prefix", help="what their names begin with there, such as module.")
    p.add_argument("--model", choices=training.MODELS, metavar="NAME", help=f"by default {RECIPE['model']}")
    p.add_argument("--size", type=training.size, metavar="HxW", help="of the images; by default 60x80")
    p.add_argument("--epochs", type=int, nargs=2, metavar=("FIRST", "THEN"),
                   help=f"of the two trainings; by default {FIRST['epochs']} and {THEN['epochs']}")  # fmt: skip
    p.add_argument("--limit", type=int, help="take only LIMIT images of each set, for a quick try")
    p.add_argument("--seed", type=int)
    p.add_argument("--sensitivity", type=float, metavar="SHARE",
                   help="of the cancers held out, to be found; by default it and the specificity add up to most")  # fmt: skip
    p.add_argument("--device", choices=("cpu", "gpu"))
    p.add_argument("--out", default="runs/skin_cancer", help="the folder of the run")
    return p


if __name__ == "__main__":
    guard.script(main)
