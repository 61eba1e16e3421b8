"""Walk the whole way back from a net's score to the image, on one page in the browser.

    python examples/step.py

takes the net of `examples/train.py` (and trains it first where it is not there) and a test image, writes runs/step/step.html,
and opens it. The page shows every step of the backward pass: what the net had computed, how much each number matters for the
score, and the arithmetic between; the button → and the arrow keys walk from the score back to the image. Press any pixel of
the image, and a strip shows where its influence is lost. It is one file that loads nothing: pass it on as it is. Your own
image, and your own net (weights as safetensors or as PyTorch writes them):

    python examples/step.py --image mole.jpg --pixel 12 20
    python examples/step.py --image cat.jpg --model resnet18 --weights resnet18.pth --target 281

A few lines of the same are printed, for a terminal: the table of the walk, the account of the score, and the arithmetic of one
pixel with --text.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
import sys
import time
import webbrowser

import common

from minidl import Tensor, ops, trace, view
from minidl.array import Array
from minidl.nn import Module


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    return guard.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    loaded = common.load(args, count=args.number + 1)
    image = loaded.images[min(args.number, len(loaded.images) - 1)]  # (C,H,W)
    x = loaded.inputs(image[None])
    target = common.number_of(args.target, loaded.classes)
    if args.text:
        print(text(loaded.model, x, target))
    name = pathlib.Path(args.image[0]).name if args.image else f"generated lesion {args.number}"
    path = pathlib.Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    view.stepper(
        loaded.model,
        x,
        target,
        path,
        image=loaded.contract.shown(image),
        classes=loaded.classes,
        picks=[tuple(pixel) for pixel in args.pixel],
        title=f"{name}: the way back",
        pixels=args.pixels,
        limit=args.limit,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s{peak()}")
    if args.open:
        webbrowser.open(path.resolve().as_uri())


def text(model: Module, x: Array, target: int | None) -> str:
    """The walk from the score as a table, and the sums on the strongest path of the pixel with the largest gradient."""
    with model.eval().frozen(), ops.unfused():
        logits = model(Tensor(x, requires_grad=True, name="image"))
        walked = trace(logits[0, int(logits.data.argmax()) if target is None else target], pixel="strongest")
    return f"{walked}\n\n{walked.arithmetic()}\n"


def peak() -> str:
    """The most memory that this process has had, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    return f", peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:,.0f} MiB"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(p)
    p.add_argument("--number", type=int, default=1, help="which of the generated images; by default 1")
    common.add_target(p)
    p.add_argument("--pixel", type=int, nargs=2, action="append", default=[], metavar=("ROW", "COLUMN"),
                   help="begin with this pixel, counted from 0; may be given several times")  # fmt: skip
    p.add_argument("--pixels", type=int, default=1024, help="how many pixels of the image can be picked; fewer are faster")
    p.add_argument("--limit", type=int, default=5_000_000, help="bytes that the page may have")
    p.add_argument("--text", action="store_true", help="print the walk and the arithmetic of a pixel as well")
    p.add_argument("--out", default="runs/step/step.html", metavar="FILE")
    p.add_argument("--no-open", dest="open", action="store_false", help="write the page, open no browser")
    return p


if __name__ == "__main__":
    guard.script(main)
