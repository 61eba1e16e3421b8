"""How often is a net right when somebody tries hard to make it wrong?

    python examples/robust.py

takes the net of `examples/train.py` (and trains it first where it is not there) and its test images, and attacks them by all
that `attack.robust_accuracy` has, for several sizes of the change. It prints which attack broke how many, and draws into
runs/robust

    accuracy.png  how many answers are right without an attack, and how many under the worst of all attacks, over the size

On CIFAR-10, with published weights:

    python examples/robust.py --data cifar10 --model resnet20 --weights resnet20.th --key state_dict --prefix module.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
import sys
import time

import common

from minidl import attack, metrics, view


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    out = pathlib.Path(args.out)

    def run() -> None:
        loaded = common.load_data(args)
        out.mkdir(parents=True, exist_ok=True)
        attacked(out / "accuracy.png", loaded, args)

    return guard.guarded(run)


def attacked(path: pathlib.Path, loaded: common.Loaded, args: argparse.Namespace) -> None:
    """A report and a row of the table for each size; the sizes with the norm "linf" are in grey levels of 255."""
    if loaded.labels is None:
        raise ValueError("--image: the right answers to images of your own are not known; leave it out")
    x, unit = common.beside(loaded.model, loaded.contract.unit(loaded.images)), 255 if args.norm == "linf" else 1
    mean, std = loaded.contract.normalize_unit.mean, loaded.contract.normalize_unit.std
    more = {"steps": args.steps, "candidates": args.candidates, "squares": args.squares, "batch_size": args.batch_size}
    shares: dict[str, list[float]] = {"without an attack": [], "under the worst attack": []}
    for size in args.eps:
        start = time.perf_counter()
        found = attack.robust_accuracy(
            loaded.model,
            x,
            loaded.labels,
            size / unit,
            norm=args.norm,
            mean=mean,
            std=std,
            progress=sys.stderr.isatty(),
            **more,
        )
        print(f"eps {size:g}{'/255' if unit > 1 else ''}, {time.perf_counter() - start:.0f} s", found, sep="\n", flush=True)
        print(f"always the largest class: {metrics.majority_accuracy(loaded.labels):.1%}", flush=True)
        for name, interval in zip(shares, (found.clean, found.accuracy), strict=True):
            shares[name].append(interval.mean)
    title = f"Right answers on {len(x)} images, and under the worst of several attacks"
    view.accuracy_by_eps(path, tuple(size / unit for size in args.eps), shares, 1 / len(loaded.classes), title, args.norm)
    print(f"{path}: right answers over eps")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(p)
    p.add_argument("--data", choices=("lesions", "cifar10"), default="lesions", help="the images that the net was trained on")
    p.add_argument("--root", default="data", help="the folder that holds CIFAR-10")
    p.add_argument("--count", type=int, default=500, help="how many images")
    p.add_argument("--norm", choices=("linf", "l2"), default="linf", help="what measures the change")
    p.add_argument("--eps", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 8], metavar="SIZE",
                   help="how large it may be: of linf in grey levels of 255, of l2 the length, in units of [0, 1]")  # fmt: skip
    p.add_argument("--steps", type=int, default=100, help="of APGD, and of the search of Carlini and Wagner's attack")
    p.add_argument("--candidates", type=int, default=9, help="classes that APGD goes towards, one after the other")
    p.add_argument("--squares", type=int, default=1000, help="steps of the square attack; 5,000 in AutoAttack")
    p.add_argument("--batch-size", type=int, default=50, help="images in memory at a time")
    p.add_argument("--out", default="runs/robust", help="the folder for the figure")
    return p


if __name__ == "__main__":
    guard.script(main)
