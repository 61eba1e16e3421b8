"""The same X-ray through three windows of grey values, and what a net says to each.

    python examples/windows.py

Scanners store 12 or 16 bits, of which a window is shown: what is below it is black, what is above it white. This generates
lesions in 12 bits, trains a net on them through one window, in a minute, and shows it the same files through that window,
through a narrow and through a wide one. Nothing in the files has changed, and the eye finds the same lesion in all three; the
net's p and its answer do change, for it has learnt what a lesion looks like through its own window. That is why a run keeps its
window, and `prepare(file)` of `minidl.train.load_run` reads every file through it. Into runs/windows go

    windows.png   each file through each window, with answer and p, and the gradient of that answer's logit
    net           the run of the training
    files         the 12-bit files

With a net of your own that was trained through a window, and files of your own, DICOM or 16 bits:

    python examples/windows.py --run runs/folder-resnet8 --image a.dcm b.dcm --window=-160,240 --window 0,80
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import train as training  # examples/train.py
from PIL import Image

from minidl import data, explain, metrics, train, view
from minidl.array import Array, check_device, to_cpu
from minidl.data import Dataset
from minidl.data.windows import Window, windowed
from minidl.train import Settings, TrainedNet
from minidl.view.names import literal
from minidl.view.shares import fraction, probability

OWN, NARROW, WIDE = (800.0, 3350.0), (1500.0, 2500.0), (0.0, 4095.0)
FILES = 4  # that are shown
SETTINGS = Settings(epochs=8, batch_size=64, lr=0.05, crop=2, flip="both", model="resnet8", data="12-bit lesions", limit=6000)


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    return guard.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    check_device(args.device)
    if bool(args.run) != bool(args.image):
        raise ValueError("--run and --image: give both, a net of yours and its files, or neither")
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(args.run or out / "net")
    files = [pathlib.Path(file) for file in args.image] if args.run else write_files(out / "files")
    if not args.run:
        train_a_net(folder, args)
    net = train.load_run(folder, training.MODELS)
    if net.contract.window is None:
        raise ValueError(f"--run: {folder} was trained without a window; train one with examples/train.py --window LOW,HIGH")
    net.model.to(args.device)
    show(net, files, args.window or [NARROW, WIDE], out / "windows.png")


def show(net: TrainedNet, files: Sequence[pathlib.Path], others: Sequence[Window], path: pathlib.Path) -> None:
    """Each file through the net's own window and through others: image, answer, p and gradient; and how many answers stay."""
    own = net.contract.window
    assert own is not None
    contracts = [replace(net.contract, window=window) for window in (own, *others)]
    images = np.stack([contract.image(file) for file in files for contract in contracts])  # (files x windows,C,H,W)
    x = net.inputs(images)
    p = metrics.probabilities(to_cpu(net.logits(x)))
    answers = p.argmax(1)
    maps = to_cpu(explain.saliency(net.model, x, answers, reduce="sum").map)
    names = [f"{literal(file.name, 24)}: {of(w)}{', as trained' * (w == own)}" for file in files for w in (own, *others)]
    captions = [
        f"{name}\n{literal(net.classes[k], 24)}, p {fraction(q[k])}" for name, k, q in zip(names, answers, p, strict=True)
    ]
    order = in_pairs(len(files), len(contracts))
    view.overlays(
        path,
        net.contract.shown(images)[order],
        maps[order],
        [captions[k] for k in order],
        "The same files through several windows of grey values",
        "gradient of the answer's logit",
        scale="image",
    )
    p, answers = (a.reshape(len(files), len(contracts), *a.shape[1:]) for a in (p, answers))
    for k, window in enumerate(others, start=1):
        same, most = (answers[:, k] == answers[:, 0]).sum(), probability(float(np.abs(p[:, k] - p[:, 0]).max()))
        print(f"through {of(window)} in place of {of(own)}: {same} of {len(files)} answers stay, p changes by up to {most}")
    print(f"the files are the same, and so is the net: what it says holds through its own window alone; now look at {path}")


def in_pairs(files: int, windows: int) -> list[int]:
    """The order of files x windows in which two columns show two files, one below the other window after window."""
    pairs = [range(k, min(k + 2, files)) for k in range(0, files, 2)]
    return [file * windows + window for pair in pairs for window in range(windows) for file in pair]


def of(window: Window) -> str:
    return f"{window[0]:g} to {window[1]:g}"


# ---- lesions in 12 bits


def grey12(images: Array) -> Array:
    """uint8 as a scanner might store it: 800 to 3350 of 4095."""
    return (800 + 10 * images.astype(np.uint16)).astype(np.uint16)


def through(dataset: Dataset, window: Window) -> Dataset:
    """The lesions in 12 bits, as `image_folder` reads them through the window."""
    images = windowed(grey12(dataset.images), *window).astype(np.float32) / np.float32(65535)
    return replace(dataset, images=images, window=window)


def write_files(folder: pathlib.Path) -> list[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    lesions = data.lesions(FILES, channels=1, seed=1)
    files = [folder / f"{k}_{lesions.classes[label]}.png" for k, label in enumerate(lesions.labels)]
    for file, image in zip(files, grey12(lesions.images[:, 0]), strict=True):
        Image.fromarray(image).save(file)
    return files


def train_a_net(folder: pathlib.Path, args: argparse.Namespace) -> None:
    """On lesions through the window OWN; what is there already goes on."""
    settings = replace(SETTINGS, epochs=args.epochs, limit=args.limit, device=args.device)
    lesions = through(data.lesions(args.limit, channels=1, seed=0), OWN)
    model = training.make("resnet8", 2, 1)
    train.fit(model, lesions, settings, folder, resume=(folder / "settings.json").exists())


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", metavar="FOLDER", help="that of a training by examples/train.py --window LOW,HIGH")
    p.add_argument("--image", nargs="+", metavar="FILE", help="files to show to it, DICOM or of 16 bits")
    p.add_argument("--window", action="append", type=training.ends, metavar="LOW,HIGH", help="another window to see them "
                   "through, one or more times; below 0 with =, such as --window=-160,240")  # fmt: skip
    p.add_argument("--limit", type=int, default=SETTINGS.limit, help="images that the net is trained on without --run")
    p.add_argument("--epochs", type=int, default=SETTINGS.epochs, help="of that training")
    p.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where the net computes; by default the cpu")
    p.add_argument("--out", default="runs/windows", help="the folder for the figure")
    return p


if __name__ == "__main__":
    guard.script(main)
