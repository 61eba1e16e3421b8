"""What the examples that explain a net begin with: a trained net, and images for it.

Without arguments, the net is the one that `examples/train.py` trains on generated lesions, and the images are its test
images; where runs/lesions-resnet8 holds no finished training, that is done first, in a minute or two. Nothing is
downloaded. With `--image` the images are files of your own, and with `--weights` and `--model` so is the net.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import train as training  # examples/train.py
from sets import text_of

from minidl import data, weights
from minidl.array import DEVICES, Array, check_device, is_array, to_device
from minidl.inference.evaluation import Answering
from minidl.io import torch_checkpoint
from minidl.nn import Module
from minidl.train import Contract, Row, Settings, TrainedNet, is_finished, load_run
from minidl.view.names import literal

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std of the nets that torchvision publishes


class Loaded(NamedTuple):
    """A net, and images for it: (N,C,H,W) as it was trained on them, labels (N,) or None where nobody knows.

    The net may be on a GPU, the images are not.
    """

    net: TrainedNet
    images: Array
    labels: Array | None

    @property
    def model(self) -> Module:
        return self.net.model

    @property
    def classes(self) -> tuple[str, ...]:
        return self.net.classes

    @property
    def contract(self) -> Contract:
        return self.net.contract

    @property
    def shown(self) -> Array:
        """The images for the eye."""
        return self.contract.shown(self.images)

    def inputs(self, images: Array) -> Array:
        """Images as the net takes them, and where it is."""
        return self.net.inputs(images)


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where the net computes; by default the cpu")


def add_head(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--head", metavar="NAME", help="the head that is asked, of a net with several")


def beside(model: Module, x: Array) -> Array:
    """`x` where the model is."""
    return to_device(x, next((p.device for p in model.parameters()), "cpu"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the net and the images")
    group.add_argument("--run", default="runs/lesions-resnet8", metavar="FOLDER",
                       help="that of a training by examples/train.py; the default one is trained if need be")  # fmt: skip
    add_head(group)
    group.add_argument("--image", nargs="+", metavar="FILE", help="look at these images instead of generated lesions")
    group.add_argument("--weights", metavar="FILE", help="weights of another net, as safetensors or as PyTorch writes them")
    group.add_argument("--model", choices=training.MODELS, metavar="NAME",
                       help=f"the net that --weights belongs to, one of {', '.join(training.MODELS)}")  # fmt: skip
    group.add_argument("--key", help="the entry of a PyTorch checkpoint that holds the weights, where there are several")
    group.add_argument("--prefix", default="", help="what the names of the weights begin with there, such as module.")
    group.add_argument("--size", type=training.size, metavar="HxW",
                       help="resize the images, 48 to 48x48; by default as the net was trained, or 224")  # fmt: skip
    group.add_argument("--mean", type=float, nargs="+", help="of each channel in [0, 1], where --weights does not tell")
    group.add_argument("--std", type=float, nargs="+", help="by default mean and std of ImageNet, or 0.5 and 0.5")
    add_device(group)


def load(args: argparse.Namespace, count: int = 8) -> Loaded:
    """The net in evaluation mode and the images that `args` ask for; `count` of them where they are generated.

    Raises ValueError or OSError for arguments, images or weights that do not go together, RuntimeError for a GPU that is not
    there, and SystemExit where the net had to be trained and the training was interrupted.
    """
    net, path = net_of(args)
    if args.image:
        return Loaded(net, np.stack([net.contract.image(file) for file in args.image]), None)
    if not trained_on_lesions(path):
        raise ValueError(f"--image is needed: {path} was not trained on lesions, which alone can be generated")
    contract = net.contract
    if contract.height != contract.width:
        raise ValueError(f"--size {text_of((contract.height, contract.width))}: lesions are drawn square, such as --size 48")
    lesions = data.lesions(count, contract.height, contract.channels, seed=1)
    return Loaded(net, lesions.images, lesions.labels)


def load_data(args: argparse.Namespace) -> Loaded:
    """The net that `args` ask for, and their images: files of their own, or `args.count` of `args.data`, lesions or cifar10."""
    return load(args, args.count) if args.data == "lesions" or args.image else load_cifar10(args)


def load_cifar10(args: argparse.Namespace) -> Loaded:
    """The net that `args` ask for, which must be of CIFAR-10, and the first `args.count` test images in `args.root`."""
    net, path = net_of(args)
    if not args.weights and (of := Settings.of_run(path).data) != "cifar10":
        raise ValueError(f"--run: {path} was trained on {of}; train one with examples/train.py --data cifar10")
    images = data.cifar10(args.root, train=False, download=True)
    images = images.take(np.arange(min(args.count, len(images))))
    return Loaded(net, images.images, images.labels)


def net_of(args: argparse.Namespace) -> tuple[TrainedNet, pathlib.Path]:
    """The net that `args` ask for, and where it was found."""
    check_device(args.device)
    if args.weights and not args.model:
        raise ValueError("--weights needs --model, the name of the net that the weights are of")
    if args.model and not args.weights:
        raise ValueError("--model needs --weights; train one with examples/train.py, and pass its folder as --run")
    if (args.key or args.prefix) and not args.weights:
        raise ValueError("--key and --prefix need --weights: they tell which entries of that file are the weights")
    path = pathlib.Path(args.weights) if args.weights else finished(pathlib.Path(args.run))
    net = of_weights(path, args.model, args.key, args.prefix) if args.weights else load_run(path, training.MODELS)
    net = of_head(net, args.head)
    if (flips := net.contract.test_flips) != "none":
        print(f"{path} answers by the mean over mirror images ({flips}); this shows each image as it is, alone", flush=True)
    return TrainedNet(net.model.to(args.device), asked_for(net.contract, args)), path


def of_head(net: TrainedNet, name: str | None) -> TrainedNet:
    """The net, or the head of that name where it has several. Raises ValueError for a name that is none of them."""
    if name is None and not net.heads:
        return net
    if name not in net.heads:
        known, came = ", ".join(map(literal, net.heads)) or "none", "nothing" if name is None else literal(name)
        raise ValueError(f"--head: expected one of the net's heads, {known}, got {came}")
    return net.head(name)


def trained_on_lesions(path: pathlib.Path) -> bool:
    folder = path if path.is_dir() else path.parent
    return (folder / "settings.json").exists() and Settings.of_run(folder).data == "lesions"


def asked_for(contract: Contract, args: argparse.Namespace) -> Contract:
    """The contract with what the command line puts in its place."""
    changed = {name: tuple(value) for name in ("mean", "std") if (value := getattr(args, name)) is not None}
    if args.size is not None:
        H, W = args.size if isinstance(args.size, tuple) else (args.size, args.size)
        changed |= {"height": H, "width": W}
    return replace(contract, **changed)


def finished(run: pathlib.Path) -> pathlib.Path:
    """The folder of a training with all its epochs done; those of the default folder are done here where they are missing."""
    begun = (run / "settings.json").exists()
    if not begun and (run.is_file() or (run / "model.safetensors").exists()):
        return run  # a net without its training
    if not begun or not is_finished(rows_of(run), Settings.of_run(run)):
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


def of_weights(path: pathlib.Path, name: str, key: str | None = None, prefix: str = "") -> TrainedNet:
    """The net `name` with the weights in the file `path`; key, prefix: as in `weights.load`.

    What a run left says what it takes. Of others the weights tell how many classes and channels there are, and their images are
    taken to be of 224x224 pixels and 8 bits, with the mean and std of ImageNet. A net with one logit z comes with two,
    (-z/2, z/2), see `Answering`: so it has two classes as others have.
    """
    raw, metadata = path.read_bytes(), dict[str, str]()
    if torch_checkpoint.is_checkpoint(raw):
        arrays = {name: a for name, a in torch_checkpoint.state_dict(raw, key).items() if is_array(a)}
    else:
        arrays, metadata = weights.load_arrays(path)
    if metadata.keys() & {"contract", "data"} and not key and not prefix:  # "data": of older runs, which load_run refuses
        return load_run(path, {name: training.MODELS[name]})
    if not {2, 4} <= {a.ndim for a in arrays.values()}:
        raise ValueError(f"{path}: expected the weights of a convolutional net, got {', '.join(list(arrays)[:5]) or 'none'}")
    channels = min(a.shape[1] for a in arrays.values() if a.ndim == 4)  # no convolution takes fewer than the first
    classes = [a for a in arrays.values() if a.ndim == 2][-1].shape[0]  # of the last linear layer
    model = training.make(name, classes, channels).eval()
    weights.load(model, path, key=key, prefix=prefix)
    mean, std = IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    names = tuple(f"class {k}" for k in range(max(classes, 2)))  # one logit answers no and yes
    contract = Contract(name, {}, names, channels, 224, 224, "uint8", (0, 255), mean, std)
    return TrainedNet(model if classes > 1 else Answering(model).eval(), contract)


def number_of(asked: str | None, classes: Sequence[str]) -> int | None:
    """The class that a --target asks for, by its name or else its number. Raises ValueError where there is none."""
    if asked is None or asked in classes:
        return None if asked is None else list(classes).index(asked)
    if not asked.isdecimal() or int(asked) >= len(classes):
        known = ", ".join(f"{k} {literal(name)}" for k, name in enumerate(classes))
        raise ValueError(f"--target: expected one of the classes {known}, got {literal(asked)}")
    return int(asked)


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="CLASS", help="the name or the number of the class to ask for; by default the "
                        "one that the net predicts. Of a missed cancer, ask for malignant")  # fmt: skip
