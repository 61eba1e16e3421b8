"""Make a net see what is not there: by how little an image must change, how often that works, what a net would like to see.

    python examples/fooling.py

takes the net of `examples/train.py` (and trains it first where it is not there) and its test images, and draws into
runs/fooling

    fooled.png    images, what was added to them (amplified, it says by how much), and what the net says before and after
    accuracy.png  how many answers are still right when every value may change by up to eps: FGSM, PGD, and random signs
    classes.png   for each class an image, made from noise, that the net is surest of

and prints how large the changes are, in grey levels of 255, which are those of the range of its images whatever their depth. On
the same for CIFAR-10, with the net of a training on it:

    python examples/fooling.py --data cifar10 --root data --run runs/cifar10-resnet20

Your own images, and your own net (weights as safetensors or as PyTorch writes them):

    python examples/fooling.py --image cat.jpg --model resnet50 --weights resnet50.pth --target 281
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
import sys
from typing import Any

import common
import numpy as np

from minidl import attack, metrics, view
from minidl.array import Array, to_cpu
from minidl.attack import AttackResult
from minidl.inference import predict
from minidl.view import figure

EPS = tuple(level / 255 for level in (0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16))


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    out = pathlib.Path(args.out)

    def run() -> None:
        loaded = common.load_data(args)
        out.mkdir(parents=True, exist_ok=True)
        fooled(out / "fooled.png", loaded, common.number_of(args.target, loaded.classes))
        accuracy(out / "accuracy.png", loaded)
        classes(out / "classes.png", loaded)

    return guard.guarded(run)


def settings_of(loaded: common.Loaded) -> dict[str, Any]:
    """What every attack is told: the net takes (u - mean) / std of images u in their own range, which is [0, 1]."""
    normalize = loaded.contract.normalize_unit
    return {"mean": normalize.mean, "std": normalize.std, "batch_size": 50, "progress": sys.stderr.isatty()}


def bounds_of(u: Array) -> tuple[float, float]:
    """[0, 1]; a little more where an image goes beyond all of those that the net was trained on."""
    return min(0.0, float(u.min())), max(1.0, float(u.max()))


def answers_to(loaded: common.Loaded, images: Array) -> Array:
    """The classes (N,) that the net sees in images as they were before normalising, both on the CPU."""
    return to_cpu(predict(loaded.model, loaded.inputs(images)).argmax(1))


def answers_in_range(loaded: common.Loaded, u: Array) -> Array:
    """The same for images u in their own range."""
    return to_cpu(predict(loaded.model, common.beside(loaded.model, loaded.contract.normalize_unit(u))).argmax(1))


def fooled(path: pathlib.Path, loaded: common.Loaded, target: int | None) -> None:
    """Every image made to look like another class: by gradient ascent, by DeepFool, and by both kinds of steps in a ball."""
    model, images, more = loaded.model, loaded.contract.unit(loaded.images), settings_of(loaded)
    x, K, answers = common.beside(model, images), len(loaded.classes), answers_to(loaded, loaded.images)
    more["bounds"] = bounds_of(images)
    wrong = (answers + 1) % K if target is None else np.full(len(x), target)
    ascent = attack.fool(model, x, wrong, **more).to("cpu")
    print(f"{len(x)} images; the sizes are means, in grey levels of 255 (the length is over all {x[0].size} values)")
    report("gradient ascent to another class", ascent)
    report("DeepFool", attack.deepfool(model, x, answers, **more))
    report("FGSM, eps 8", attack.fgsm(model, x, answers, **more))
    report("PGD, eps 8", attack.pgd(model, x, answers, **more))
    report("PGD in a ball of length 127.5", attack.pgd(model, x, answers, eps=0.5, norm="l2", **more))
    if levels := loaded.contract.levels:
        whole = answers_in_range(loaded, np.rint(levels * ascent.x) / np.float32(levels))
        print(f"Rounded to whole grey levels, {(whole == wrong).mean():.0%} of the first ones still fool the net.")
    first = slice(6)
    view.fooled(
        path,
        np.clip(images[first], 0, 1),
        np.clip(ascent.x[first], 0, 1),
        metrics.probabilities(ascent.before[first]),
        metrics.probabilities(ascent.logits[first]),
        loaded.classes,
        "What it takes to make the net see something else",
    )
    print(f"{path}: images before and after")


def report(name: str, found: AttackResult) -> None:
    found = found.to("cpu")
    largest, length = (255 * found.norms[norm] for norm in ("linf", "l2"))
    print(
        f"{name:32} fooled {found.success.mean():4.0%}   largest {largest.mean():6.2f} (at most {largest.max():6.2f})   "
        f"length {length.mean():7.1f} (at most {length.max():7.1f})"
    )


def accuracy(path: pathlib.Path, loaded: common.Loaded) -> None:
    """The share of right answers under each attack, over its size; of images without labels, of answers that stay."""
    model, images, more = loaded.model, loaded.contract.unit(loaded.images), settings_of(loaded)
    if len(images) < 10:
        print(f"{path}: not drawn, {len(images)} images are too few to speak of shares")
        return
    x, y = common.beside(model, images), answers_to(loaded, loaded.images) if loaded.labels is None else loaded.labels
    more["bounds"] = bounds_of(images)
    signs = np.random.default_rng(0).choice(np.float32([-1, 1]), images.shape)
    shares: dict[str, list[float]] = {"random signs": [], "FGSM": [], "PGD, 40 steps": []}
    print(f"always the largest class: {metrics.majority_accuracy(to_cpu(y)):.1%}")
    print("eps      " + "".join(f"{name:>15}" for name in shares))
    for eps in EPS:
        noisy = np.clip(images + np.float32(eps) * signs, *more["bounds"])
        shares["random signs"].append(float((answers_in_range(loaded, noisy) == y).mean()))
        shares["FGSM"].append(float(1 - attack.fgsm(model, x, y, eps, **more).success.mean()))
        shares["PGD, 40 steps"].append(float(1 - attack.pgd(model, x, y, eps, **more).success.mean()))
        print(f"{255 * eps:5.1f}/255" + "".join(f"{share[-1]:15.1%}" for share in shares.values()))
    title = f"Right answers on {len(images)} images that an attacker may change a little"
    view.accuracy_by_eps(path, EPS, shares, 1 / len(loaded.classes), title)
    print(f"{path}: right answers over eps")


def classes(path: pathlib.Path, loaded: common.Loaded) -> None:
    """One image for each of the first ten classes."""
    which = np.arange(min(10, len(loaded.classes)))
    found = attack.class_image(loaded.model, loaded.images.shape[1:], which, **settings_of(loaded)).to("cpu")
    captions = [
        f"{figure.name(loaded.classes[k], 20)}\nlogit {found.before[k, k]:.1f} → {found.logits[k, k]:.1f}" for k in which
    ]
    view.images_of_classes(path, found.x, captions, "From noise, up the gradient of a class")
    print(f"{path}: what the net would like to see")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(p)
    p.add_argument("--data", choices=("lesions", "cifar10"), default="lesions", help="the images that --run was trained on")
    p.add_argument("--root", default="data", help="the folder that holds CIFAR-10")
    p.add_argument("--count", type=int, default=100, help="how many images")
    p.add_argument(
        "--target", metavar="CLASS", help="name or number of the class to see; by default the one after the right one"
    )
    p.add_argument("--out", default="runs/fooling", help="the folder for the images")
    return p


if __name__ == "__main__":
    guard.script(main)
