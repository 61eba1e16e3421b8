"""Why can a net be fooled by so little? Because it is nearly linear, and an image has many values.

    python examples/linearity.py

trains two small nets on generated images of skin, in a minute, to tell in which quarter the lesion is. They differ in
nothing but their activations: ReLU in one, sigmoid in the other. Then it moves an image x along d = sign(dS/dx), S the
score of the right class, by eps of both signs. Each value changes by no more than eps, but S by eps ||dS/dx||_1, as long as
the net is linear: 3,072 small changes add up. Into runs/linearity it draws

    linearity.png   all scores over eps, along d and along random signs, and what changes in the net on the way: which share
                    of the ReLUs open or close, in how many pool windows another value wins, how steep the sigmoids still are

and prints the same for more images. Where sigmoids saturate, the scores bend. Your own image and your own net:

    python examples/linearity.py --image cat.jpg --model resnet50 --weights resnet50.pth
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib

import common
import numpy as np

from minidl import Tensor, attack, data, inference, metrics, nn, ops, view
from minidl.array import Array, check_device, to_cpu
from minidl.data import Dataset, Loader
from minidl.optim import AdamW
from minidl.train import Contract

QUARTERS = ("top left", "top right", "bottom left", "bottom right")
ACTIVATIONS = {"ReLU": nn.ReLU, "sigmoid": nn.Sigmoid}


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    out = pathlib.Path(args.out)

    def run() -> None:
        if args.image or args.weights:
            loaded = common.load(args)
            nets, images, contract = {args.model or "the net": loaded.model}, loaded.images, loaded.contract
            targets = to_cpu(inference.predict(loaded.model, loaded.inputs(images)).argmax(1)).tolist()
        else:
            nets, test_set, contract = two_nets(args)
            images, targets = test_set.images, test_set.labels.tolist()
        out.mkdir(parents=True, exist_ok=True)
        look(out / "linearity.png", nets, images[: args.count], targets, contract, args.max_eps / 255)

    return guard.guarded(run)


def look(
    path: pathlib.Path,
    nets: dict[str, nn.Module],
    images: Array,
    targets: list[int],
    contract: Contract,
    max_eps: float,
) -> None:
    """Sweep every image with every net, draw the first, and print the means of all."""
    normalize = contract.normalize_unit
    given = {"max_eps": max_eps, "mean": normalize.mean, "std": normalize.std, "batch_size": 50}
    first = {}
    for name, net in nets.items():
        found = []
        for image, target in zip(images, targets, strict=False):
            x = common.beside(net, contract.unit(image[None]))
            found.append(attack.linearity(net, x, target, **given))
        first[name] = found[0]
        r2 = [np.mean([getattr(f, way).r2[f.target] for f in found]) for way in ("along", "random")]
        rise = [np.mean([np.ptp(getattr(f, way).logits[:, f.target]) for f in found]) for way in ("along", "random")]
        print(
            f"{name:10} {len(found)} images: along the sign of the gradient the score moves by {rise[0]:.1f} "
            f"(R² of a line {r2[0]:.3f}), along random signs by {rise[1]:.2f} (R² {r2[1]:.3f})"
        )
        for what, count in found[0].counts.items():
            share = {"gates": "gates", "switches": "switches", "sigmoids": "slopes"}[what]
            if count:
                ends = np.mean([getattr(f.along, share)[[0, -1]] for f in found])
                middle = np.mean([getattr(f.along, share)[len(f.eps) // 2] for f in found])
                said = "slope, of the steepest:" if what == "sigmoids" else "changed:"
                print(f"{'':10} {count:,} {what}, {said} {middle:.1%} at eps = 0, {ends:.1%} at both ends")
    title = "Far along one direction: a net of ReLUs stays nearly straight, one of sigmoids saturates"
    view.linearity(
        path, first, contract.classes, title if len(first) > 1 else "Along the sign of the gradient, and along random signs"
    )
    print(f"{path}: the scores of the first image")


# ---- two nets that differ in their activations


class Net(nn.Module):
    """A convolution, a coarse pooling, two linear layers: (N,3,32,32) -> (N,4)"""

    def __init__(self, activation: type[nn.Module], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.conv = nn.Conv2d(3, 12, 5, padding=2, bias=False, rng=rng)
        self.bn = nn.BatchNorm2d(12)
        self.pool = nn.MaxPool2d(4)
        self.hidden = nn.Linear(12 * 8 * 8, 32, rng=rng)
        self.out = nn.Linear(32, len(QUARTERS), rng=rng)
        self.first, self.second = activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.first(self.bn(self.conv(x))))  # (N,12,8,8)
        return self.out(self.second(self.hidden(ops.flatten(h))))


def two_nets(args: argparse.Namespace) -> tuple[dict[str, nn.Module], Dataset, Contract]:
    """The same training for both: same start, same images in the same order."""
    check_device(args.device)
    train_set, test_set = quarters(data.lesions(args.images, seed=0)), quarters(data.lesions(500, seed=1))
    contract = Contract.of(train_set, "Net")
    nets: dict[str, nn.Module] = {}
    for name, activation in ACTIVATIONS.items():
        net = nets[name] = Net(activation).to(args.device)
        optimizer = AdamW(net.parameters(), 3e-3)
        loader = Loader(train_set, 50, augment=contract.normalize, seed=0, drop_last=True, device=args.device)
        for epoch in range(args.epochs):
            loader.set_epoch(epoch)
            for x, labels in loader:
                optimizer.zero_grad()
                ops.cross_entropy(net(x), labels).backward()
                optimizer.step()
        _, logits, labels = inference.evaluate(net, test_set, prepare=contract.normalize)
        right, majority = metrics.accuracy(logits, labels), metrics.majority_accuracy(labels)
        told = f"{right:.1%} right (always the largest class: {majority:.1%})"
        print(f"{name:10} {told} after {args.epochs} epochs", flush=True)
    return nets, test_set, contract


def quarters(lesions: Dataset) -> Dataset:
    """The same images, labelled by where the middle of the lesion is."""
    mask = lesions.masks["lesion"]  # (N,H,W)
    area, (H, W) = mask.sum((1, 2)), mask.shape[1:]
    row = (mask * np.arange(H)[:, None]).sum((1, 2)) / area
    column = (mask * np.arange(W)).sum((1, 2)) / area
    labels = 2 * (row > (H - 1) / 2) + (column > (W - 1) / 2)
    return Dataset(lesions.images, labels.astype(np.int64), QUARTERS, name="quarters")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(p)
    p.add_argument("--max-eps", type=float, default=64, help="the largest change of a value, in grey levels of 255")
    p.add_argument("--count", type=int, default=20, help="how many images to print the means of")
    p.add_argument("--images", type=int, default=3000, help="how many to train on")
    p.add_argument("--epochs", type=int, default=4)
    p.add_argument("--out", default="runs/linearity", help="the folder for the image")
    return p


if __name__ == "__main__":
    guard.script(main)
