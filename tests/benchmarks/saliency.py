"""What saliency maps cost, beside one forward and backward pass of training on the same images.

    python -m tests.benchmarks.saliency [--model resnet20] [--images 128] [--size 32]

`explain.saliency` as it comes, with all its checks and in its batches, against forward, loss and backward of all images at
once in training mode, down to the images but without the gradients of the weights, which saliency does not need either.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

import models
from minidl import Tensor, explain, gradients, ops
from tests.benchmarks.duel import Worker, duel


def setup(what: str, name: str, images: int, size: int) -> Callable[[], Any]:
    model = getattr(models, name)(num_classes=10)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, 3, size, size), dtype=np.float32)
    labels = rng.integers(0, 10, images)

    def saliency() -> float:
        return float(explain.saliency(model, x).map.sum())

    def training() -> float:
        with model.train().frozen():
            image = Tensor(x, requires_grad=True)
            (gx,) = gradients(ops.cross_entropy(model(image), labels), [image])
        return float(gx.sum())

    return {"saliency": saliency, "training": training}[what]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels of an image's side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="per contestant and round")
    args = parser.parse_args()

    case = args.model, args.images, args.size
    contestants = {what: (Worker("tests.benchmarks.saliency"), (what, *case)) for what in ("saliency", "training")}
    times, _ = duel(contestants, args.rounds, args.seconds)
    for worker, _ in contestants.values():
        worker.close()
    saliency, training = (statistics.median(times[what]) * 1e3 for what in ("saliency", "training"))
    ratio = statistics.median(a / b for a, b in zip(times["saliency"], times["training"], strict=True))
    print(f"{args.model}, {args.images} images of {args.size}x{args.size}: saliency maps {saliency:.0f} ms, "
          f"training forward+backward without weight gradients {training:.0f} ms, ratio {ratio:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
