"""PyTorch's answer to `examples/train.py --data cifar10 --model resnet20`: the same net, recipe and files.

    python -m tests.benchmarks.cifar_peer --root data --epochs 15 --seeds 8

trains both, 8 times each, two at a time and each in a process of one thread; a training in runs/cifar_peer goes on after its
last finished epoch. Then it prints every test accuracy, their means with standard errors, and the mean of the differences of
both of a seed. Below stand the losses of the test images and of the last epoch's batches, which chance moves less. A seed means
other weights, orders and crops to each side, so the pairs have nothing in common but their number.

Recipe: batch 128, SGD with Nesterov momentum 0.9, weight decay 5e-4 on weights only, learning rate linear from 0 to 0.2
over the first 30% of the steps and then a cosine to 0, crops of the image padded by 4 and flips.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import models
from minidl import data, train
from minidl.inference import evaluate
from minidl.io import files

SIDES = ("minidl", "PyTorch")
MEASURES = {
    "accuracy": ("test accuracy, %", 100),
    "loss": ("test loss, x 100", 100),
    "train_loss": ("last epoch's loss, x 100", 100),
}


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


def train_ours(root: str, epochs: int, seed: int, out: pathlib.Path) -> dict[str, float]:
    """What minidl comes to: `measured`."""
    train_set, test_set = data.cifar10(root), data.cifar10(root, train=False)
    model = models.resnet20(num_classes=10, seed=seed)
    settings = train.Settings(epochs=epochs, seed=seed, model="resnet20", data="cifar10", root=root)
    rows = train.fit(model, train_set, settings, out, resume=(out / "settings.json").exists())
    net = train.load_run(out, {"resnet20": models.resnet20})
    _, logits, labels = evaluate(net.model, test_set, 500, net.contract.normalize)
    return measured(torch.from_numpy(logits), torch.from_numpy(labels), rows[-1]["train_loss"])


def train_theirs(root: str, epochs: int, seed: int, out: pathlib.Path) -> dict[str, float]:
    """What PyTorch comes to, with its channels last, which is how it is fastest: `measured`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x, labels = read(root, [f"data_batch_{i}" for i in range(1, 6)])
    x_test, labels_test = read(root, ["test_batch"])
    mean, std = (t.view(3, 1, 1) for t in (torch.tensor([125.3, 123.0, 113.9]), torch.tensor([63.0, 62.1, 66.7])))
    x, x_test = ((t.float() - mean) / std for t in (x, x_test))

    model = ResNet().to(memory_format=torch.channels_last)
    opt = torch.optim.SGD(decayed(model), lr=0.2, momentum=0.9, nesterov=True)
    steps = len(x) // 128
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda k: share_of_rate(k, epochs * steps))
    begun = torch.load(out, weights_only=False) if out.exists() else None
    if begun:
        for part, state in zip((model, opt, schedule), begun["states"], strict=True):
            part.load_state_dict(state)
        rng.bit_generator.state = begun["draws"]
    for epoch in range(begun["epochs"] if begun else 0, epochs):
        start, total = time.perf_counter(), 0.0
        model.train()
        order = rng.permutation(len(x))
        for i in range(steps):
            pick = order[i * 128 : (i + 1) * 128]
            batch = augment(x[pick], rng).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(batch), labels[pick])
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:3d}  loss {total / steps:.4f}  {time.perf_counter() - start:.1f} s", flush=True)
        states = [part.state_dict() for part in (model, opt, schedule)]
        begun = {"epochs": epoch + 1, "states": states, "draws": rng.bit_generator.state, "train_loss": total / steps}
        torch.save(begun, content := io.BytesIO())
        files.write(out, content.getvalue())
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(x_test[i : i + 500]) for i in range(0, len(x_test), 500)])
    return measured(logits, labels_test, begun["train_loss"])


def measured(logits: torch.Tensor, labels: torch.Tensor, train_loss: float) -> dict[str, float]:
    """Accuracy and loss on the test images; beside them the mean loss of the last epoch's augmented batches."""
    accuracy, loss = (logits.argmax(1) == labels).double().mean(), F.cross_entropy(logits.double(), labels)
    return {"accuracy": float(accuracy), "loss": float(loss), "train_loss": train_loss}


def decayed(model: nn.Module) -> list[dict[str, object]]:
    """Its parameters for an optimiser: weights decay, biases and batch norm do not."""
    groups = {True: [], False: []}  # type: dict[bool, list[nn.Parameter]]
    for p in model.parameters():
        groups[p.ndim > 1].append(p)
    return [{"params": groups[True], "weight_decay": 5e-4}, {"params": groups[False], "weight_decay": 0.0}]


def share_of_rate(step: int, steps: int) -> float:
    """Of the highest learning rate, at a step of so many: up in a line, down in half a cosine."""
    warm = 0.3 * steps
    return step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def compare(root: str, epochs: int, seeds: int, out: pathlib.Path) -> None:
    """Train what is not in the folder yet, and print both sides."""
    paths = [(side, seed, out / f"{side}-{epochs}-{seed}.json") for seed in range(seeds) for side in SIDES]

    def one(job: tuple[str, int, pathlib.Path]) -> None:
        side, seed, path = job
        if path.exists():
            return
        command = [sys.executable, "-m", __spec__.name, "--root", root, "--epochs", str(epochs), "--out", str(out)]
        threads = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with open(path.with_suffix(".log"), "a") as log:
            environment = os.environ | threads
            subprocess.run([*command, "--side", side, "--seed", str(seed)], check=True, stdout=log, stderr=log, env=environment)
        print(f"{path.stem}: {json.loads(path.read_text())['accuracy']:.4f}", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, paths))
    found = {side: [json.loads(p.read_text()) for s, _, p in paths if s == side] for side in SIDES}
    for measure, (title, scale) in MEASURES.items():
        print(f"\n{title}, {epochs} epochs")
        print(table(*(scale * np.array([values[measure] for values in found[side]]) for side in SIDES)))


def table(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Values by seed, their means with standard errors (s / sqrt n), and those of the differences."""
    lines = [" " * 11 + "".join(f"{title:>15}" for title in (*SIDES, "ours - theirs"))]
    lines += [f"seed {k:<6}{a:15.2f}{b:15.2f}{a - b:+15.2f}" for k, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    lines += [f"mean       {ours.mean():15.2f}{theirs.mean():15.2f}{(ours - theirs).mean():+15.2f}"]
    if len(ours) > 1:
        errors = (values.std(ddof=1) / math.sqrt(len(values)) for values in (ours, theirs, ours - theirs))
        lines += ["+-         " + "".join(f"{error:15.2f}" for error in errors)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=8, help="how many trainings of each side")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/cifar_peer"))
    parser.add_argument("--side", choices=SIDES, help="do one training alone, of --seed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.side is None:
        return compare(args.root, args.epochs, args.seeds, args.out)
    torch.set_num_threads(1)
    name = f"{args.side}-{args.epochs}-{args.seed}"
    train_side = train_ours if args.side == "minidl" else train_theirs
    found = train_side(args.root, args.epochs, args.seed, args.out / name)
    files.write(args.out / f"{name}.json", json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
