"""PyTorch's answer to `examples/train.py --data cifar10 --model resnet20`: the same net, recipe and files.

    python -m tests.benchmarks.cifar_peer --root data --epochs 15 --seed 0

Recipe: batch 128, SGD with Nesterov momentum 0.9, weight decay 5e-4 on weights only, learning rate linear from 0 to 0.2
over the first 30% of the steps and then a cosine to 0, crops of the image padded by 4 and flips.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def read(root: str, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    folder = pathlib.Path(root) / "cifar-10-batches-bin"
    records = np.concatenate([np.fromfile(folder / f"{name}.bin", np.uint8) for name in names]).reshape(-1, 3073)
    return torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(records[:, 0].astype(np.int64))


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride, self.more = stride, c_out - c_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(y + x)


class ResNet(nn.Module):
    """He et al. 2016, section 4.2, shortcuts of option A; n blocks a stage make 6n + 2 layers."""

    def __init__(self, n: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, c = [], 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            for i in range(n):
                blocks.append(Block(c, width, stride if i == 0 else 1))
                c = width
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(64, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


def augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """One random 32x32 crop of each image padded by 4, and a flip of half of them."""
    n = len(x)
    windows = F.pad(x, (4, 4, 4, 4)).unfold(2, 32, 1).unfold(3, 32, 1)  # (N,C,9,9,32,32)
    top, left = (torch.from_numpy(rng.integers(0, 9, n)) for _ in range(2))
    y = windows[torch.arange(n), :, top, left]
    flip = torch.from_numpy(rng.random(n) < 0.5)
    return torch.where(flip[:, None, None, None], y.flip(3), y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    x, labels = read(args.root, [f"data_batch_{i}" for i in range(1, 6)])
    x_test, labels_test = read(args.root, ["test_batch"])
    mean, std = (t.view(3, 1, 1) for t in (torch.tensor([125.3, 123.0, 113.9]), torch.tensor([63.0, 62.1, 66.7])))
    x, x_test = ((t.float() - mean) / std for t in (x, x_test))

    model = ResNet()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    opt = torch.optim.SGD(groups, lr=0.2, momentum=0.9, nesterov=True)
    steps = args.epochs * (len(x) // 128)
    warm = 0.3 * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda k: k / warm if k < warm else 0.5 * (1 + math.cos(math.pi * (k - warm) / (steps - warm)))
    )
    for epoch in range(args.epochs):
        start, total = time.perf_counter(), 0.0
        model.train()
        order = rng.permutation(len(x))
        for i in range(len(x) // 128):
            pick = order[i * 128 : (i + 1) * 128]
            loss = F.cross_entropy(model(augment(x[pick], rng)), labels[pick])
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        model.eval()
        with torch.no_grad():
            hits = sum(
                int((model(x_test[i : i + 500]).argmax(1) == labels_test[i : i + 500]).sum())
                for i in range(0, len(x_test), 500)
            )
        print(
            f"epoch {epoch + 1:3d}  loss {total / (len(x) // 128):.4f}  "
            f"test accuracy {hits / len(x_test):.4f}  {seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
