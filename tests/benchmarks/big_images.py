"""What large images take: memory and time of a training step and of a saliency map of ResNet-20, with and without recompute.

    python -m tests.benchmarks.big_images --train 1024 --saliency 2048

One image each, in a process of its own; the peak is that of the process, what Python and Numba take included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

import models
from minidl import Tensor, explain, nn, ops, optim
from models.resnet import CifarResNet

HOW = ("kept", "blocks", "halves")


class Recomputed(nn.Module):
    """The net, each of its blocks recomputed, or in halves"""

    def __init__(self, net: CifarResNet, halves: bool) -> None:
        self.net, self.halves = net, halves

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        blocks: list[Any] = [lambda x: nn.conv_relu(x, net.conv1, net.bn1)]
        blocks += [block for stage in (net.layer1, net.layer2, net.layer3) for _, block in stage.named_children()]
        if self.halves:
            x = in_halves(blocks, x)
        else:
            for block in blocks:
                x = ops.recompute(block, x)
        return net.linear(ops.global_avg_pool2d(x))


def in_halves(blocks: list[Any], x: Tensor) -> Tensor:
    """Blocks within blocks: of k are held log2 k inputs, for log2 k more passes forward"""
    if len(blocks) == 1:
        return ops.recompute(blocks[0], x)
    half = len(blocks) // 2
    x = ops.recompute(lambda x: in_halves(blocks[:half], x), x)
    return in_halves(blocks[half:], x)


def run(what: str, size: int, how: str) -> None:
    net = models.resnet20(norm="group" if what == "train" else "batch")
    model = net if how == "kept" else Recomputed(net, how == "halves")
    x = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    seconds = []
    for _ in range(2):  # the first one compiles
        start = time.perf_counter()
        if what == "train":
            optimizer.zero_grad()
            ops.cross_entropy(model(Tensor(x)), np.array([3])).backward()
            optimizer.step()
        else:
            explain.saliency(model, x)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{what} {size}x{size}, {how}: {peak:,.0f} MiB at most, {seconds[-1]:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1024, help="height and width")
    parser.add_argument("--saliency", type=int, default=2048, help="height and width")
    parser.add_argument("--only", choices=[f"{what}-{how}" for what in ("train", "saliency") for how in HOW])
    asked = parser.parse_args()
    sizes = {"train": asked.train, "saliency": asked.saliency}
    if asked.only:
        what, how = asked.only.split("-")
        run(what, sizes[what], how)
        return
    for what in sizes:
        for how in HOW:
            command = [sys.executable, "-m", "tests.benchmarks.big_images", *sys.argv[1:], "--only", f"{what}-{how}"]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
