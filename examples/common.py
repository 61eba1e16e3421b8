"""What the examples that explain a net begin with: a trained net, and images for it.

Without arguments, the net is the one that `examples/train.py` trains on generated lesions, and the images are its test
images; where runs/lesions-resnet8 holds no finished training, that is done first, in a minute or two. Nothing is
downloaded. With `--image` the images are files of your own, and with `--weights` and `--model` so is the net.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import train as training  # examples/train.py

from minidl import data, weights
from minidl.arguments import numbers
from minidl.array import DEVICES, Array, check_device, is_array, to_device
from minidl.data import Normalize
from minidl.io import torch_checkpoint
from minidl.nn import Module
from minidl.train import Row, Settings

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std of the nets that torchvision publishes


class Loaded(NamedTuple):
    """A net, and images for it: images (N,C,H,W) uint8, labels (N,) or None where nobody knows, the names of the classes.

    The net takes normalize(images), which is (images / 255 - mean) / std, channel by channel. It may be on a GPU, the images
    are not.
    """

    model: Module
    images: Array
    labels: Array | None
    classes: tuple[str, ...]
    normalize: Normalize

    def inputs(self, images: Array) -> Array:
        """Images as the net takes them, and where it is."""
        return beside(self.model, self.normalize(images))


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where the net computes; by default the cpu")


def beside(model: Module, x: Array) -> Array:
    """`x` where the model is."""
    return to_device(x, next((p.device for p in model.parameters()), "cpu"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the net and the images")
    group.add_argument("--run", default="runs/lesions-resnet8", metavar="FOLDER",
                       help="that of a training by examples/train.py; the default one is trained if need be")  # fmt: skip
    group.add_argument("--image", nargs="+", metavar="FILE", help="look at these images instead of generated lesions")
    group.add_argument("--weights", metavar="FILE", help="weights of another net, as safetensors or as PyTorch writes them")
    group.add_argument("--model", choices=training.MODELS, metavar="NAME",
                       help=f"the net that --weights belongs to, one of {', '.join(training.MODELS)}")  # fmt: skip
    group.add_argument("--key", help="the entry of a PyTorch checkpoint that holds the weights, where there are several")
    group.add_argument("--prefix", default="", help="what the names of the weights begin with there, such as module.")
    group.add_argument("--size", type=int, help="resize the images to SIZE x SIZE; by default as the net was trained, or 224")
    group.add_argument("--mean", type=float, nargs="+", help="of each channel in [0, 1], where --weights does not tell")
    group.add_argument("--std", type=float, nargs="+", help="by default mean and std of ImageNet, or 0.5 and 0.5")
    add_device(group)


def load(args: argparse.Namespace, count: int = 8) -> Loaded:
    """The net in evaluation mode and the images that `args` ask for; `count` of them where they are generated.

    Raises ValueError or OSError for arguments, images or weights that do not go together, RuntimeError for a GPU that is not
    there, and SystemExit where the net had to be trained and the training was interrupted.
    """
    check_device(args.device)
    if args.weights and not args.model:
        raise ValueError("--weights needs --model, the name of the net that the weights are of")
    if args.model and not args.weights:
        raise ValueError("--model needs --weights; train one with examples/train.py, and pass its folder as --run")
    path = pathlib.Path(args.weights or finished(pathlib.Path(args.run)) / "model.safetensors")
    settings = Settings.of_run(path.parent) if (path.parent / "settings.json").exists() else None
    if not args.image and (settings is None or settings.data != "lesions"):
        raise ValueError(f"--image is needed: {path} was not trained on lesions, which alone can be generated")
    name = args.model or settings.model  # type: ignore[union-attr]
    model, classes, normalize = net(path, name, args.mean, args.std, args.key, args.prefix)
    model.to(args.device)
    if not args.image:
        dataset = data.lesions(count, args.size or settings.size or 32, len(normalize.mean), seed=1)  # type: ignore[union-attr]
        return Loaded(model, dataset.images, dataset.labels, classes, normalize)
    size = args.size or (224 if settings is None else settings.size or 32)
    images = [image_of(file, size, len(normalize.mean)) for file in args.image]
    return Loaded(model, np.stack(images), None, classes, normalize)


def image_of(file: str, size: int, channels: int) -> Array:
    """(channels,size,size) uint8"""
    pixels = data.read_image(file, (size, size), channels)
    return pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels).astype(np.uint8)


def finished(run: pathlib.Path) -> pathlib.Path:
    """The folder of a training with all its epochs done; those of the default folder are done here where they are missing."""
    begun = (run / "settings.json").exists()
    if not begun or len(rows_of(run)) < Settings.of_run(run).epochs:
        if run != pathlib.Path("runs/lesions-resnet8"):
            raise ValueError(f"--run: {run} holds no finished training; examples/train.py --out {run} makes one")
        print(f"{run} holds no finished training yet, so the net is trained first, in a minute or two.", flush=True)
        if code := training.main(["--resume"] if begun else []):
            raise SystemExit(code)
    return run


def rows_of(run: pathlib.Path) -> list[Row]:
    """The rows of the metrics of a run, none where its files are missing or damaged: to resume it writes them again."""
    try:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (FileNotFoundError, ValueError, RecursionError):
        return []
    return rows if (run / "model.safetensors").exists() and all(isinstance(row, dict) for row in rows) else []


def known_of(path: pathlib.Path, metadata: Mapping[str, str], classes: int, channels: int) -> dict[str, Any]:
    """What `minidl.train` wrote beside the weights: "classes", "mean" and "std". Raises ValueError where that is damaged."""
    try:
        about = json.loads(metadata.get("data", "{}"))
        names = about.setdefault("classes", [f"class {k}" for k in range(classes)])
        if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
            raise ValueError(f"classes: expected {classes} names, got {names!r}")
        for name, interval in ("mean", "(-inf, inf)"), ("std", "(0, inf)"):
            if name in about:
                numbers(about[name], name, interval, channels)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: what it says of its images is damaged: {error}") from error
    return about


def net(
    path: pathlib.Path,
    name: str,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    key: str | None = None,
    prefix: str = "",
) -> tuple[Module, tuple[str, ...], Normalize]:
    """The net `name` with the weights in the file `path`, the names of its classes, and how its images are normalised.

    How many classes and channels it has, the weights tell. key, prefix: as in `weights.load`.
    """
    raw, metadata = path.read_bytes(), dict[str, str]()
    if torch_checkpoint.is_checkpoint(raw):
        arrays = {name: a for name, a in torch_checkpoint.state_dict(raw, key).items() if is_array(a)}
    else:
        arrays, metadata = weights.load_arrays(path)
    if not {2, 4} <= {a.ndim for a in arrays.values()}:
        raise ValueError(f"{path}: expected the weights of a convolutional net, got {', '.join(list(arrays)[:5]) or 'none'}")
    channels = min(a.shape[1] for a in arrays.values() if a.ndim == 4)  # no convolution takes fewer than the first
    classes = [a for a in arrays.values() if a.ndim == 2][-1].shape[0]  # of the last linear layer
    about = known_of(path, metadata, classes, channels)
    model = training.make(name, classes, channels).eval()
    weights.load(model, path, key=key, prefix=prefix)
    known = IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    normalize = Normalize(mean or about.get("mean") or known[0], std or about.get("std") or known[1])
    return model, tuple(about["classes"]), normalize
