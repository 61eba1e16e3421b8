"""What loading and augmenting cost: an epoch beside as many steps on one batch that lies in memory.

    python -m tests.benchmarks.epoch [--model resnet20] [--images 50000] [--batch 128] [--block 30]

The epoch takes shuffled batches from `data.Loader`, cropped, mirrored and normalised as in training, and made ahead in its
thread. After every `--block` of its steps as many are run on the same batch again, so that both meet the same machine. Printed
are the sums of both, the median of the ratios block by block, and what one batch costs where nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import models
from minidl import Tensor, ops, optim
from minidl.array import Array
from minidl.data import Dataset, Loader
from minidl.data.augment import Compose, Normalize, RandomCrop, RandomFlip
from minidl.data.cifar import cifar10


def cifar_or_noise(n: int) -> Dataset:
    """n images of the CIFAR-10 in the folder MINIDL_TEST_DATA, some of them several times, or else n of noise"""
    folder = os.environ.get("MINIDL_TEST_DATA")
    if folder:
        found = cifar10(Path(folder))
        return found.take(np.arange(n) % len(found))
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    return Dataset(noise, rng.integers(0, 10, n), tuple("0123456789"))


def stepper(name: str) -> Callable[[Array, Array], None]:
    """A training step of a new model"""
    model = getattr(models, name)()
    optimizer = optim.SGD(optim.decay_groups(model, 5e-4), lr=1e-3, momentum=0.9, nesterov=True)

    def step(x: Array, labels: Array) -> None:
        loss = ops.cross_entropy(model(Tensor(x)), labels)
        for p in model.parameters():
            p.grad = None
        loss.backward()
        optimizer.step()

    return step


def blocks(loader: Loader, step: Callable[[Array, Array], None], size: int) -> Iterator[tuple[float, float]]:
    """Seconds of `size` steps of an epoch, and of as many on the last of their batches, one after the other"""
    batches, left = iter(loader), len(loader)
    while left >= size:
        start = time.perf_counter()
        for _ in range(size):
            x, labels = next(batches)
            step(x, labels)
        loaded = time.perf_counter()
        for _ in range(size):
            step(x, labels)
        yield loaded - start, time.perf_counter() - loaded
        left -= size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--block", type=int, default=30, help="steps after which epoch and steps alone take turns")
    args = parser.parse_args()

    dataset = cifar_or_noise(args.images)
    mean, std = dataset.take(np.arange(min(len(dataset), 10_000))).mean_std()
    augment = Compose([RandomCrop(4, fill=mean), RandomFlip(), Normalize(mean, std)])
    loader = Loader(dataset, args.batch, augment=augment, drop_last=True)
    step = stepper(args.model)
    x, labels = next(iter(loader))
    for _ in range(5):  # compiles, and finds its memory
        step(x, labels)

    times = list(blocks(loader, step, args.block))
    epoch, steps = map(sum, zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)

    rng, alone = np.random.default_rng(0), []
    for _ in range(100):
        start = time.perf_counter()
        augment(dataset.images[rng.integers(0, len(dataset), args.batch)], rng)
        alone.append(time.perf_counter() - start)
    n = len(times) * args.block
    print(f"{args.model}, {n} steps of {args.batch}: loaded {epoch / n * 1e3:.1f} ms a step, alone {steps / n * 1e3:.1f} ms, "
          f"ratio of the sums {epoch / steps:.3f}, of the blocks {ratio:.3f}; "
          f"a batch costs {statistics.median(alone) * 1e3:.2f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
