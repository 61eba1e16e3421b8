"""What attacks of others leave right, on the weights and images of `examples/robust.py --data cifar10 --model resnet20`.

    python -m tests.benchmarks.robust_peer --root data --weights resnet20.th --prefix module.

runs torchattacks' APGD (cross-entropy, then the targeted difference of logits ratio) and its square attack on the images that
still stand, and `attack.robust_accuracy` beside them; one row for each eps.
"""

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np
import torch
import torchattacks

import models
from minidl import attack, weights
from minidl.io import torch_checkpoint
from tests.benchmarks.cifar_peer import ResNet, read

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalised(torch.nn.Module):
    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net
        self.mean, self.std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - self.mean) / self.std)


def peer(path: str, key: str | None) -> torch.nn.Module:
    """The same weights, in the order in which both nets list them."""
    given = torch_checkpoint.state_dict(pathlib.Path(path).read_bytes(), key)
    arrays = [torch.from_numpy(np.array(a)) for name, a in given.items() if "num_batches" not in name]
    net = ResNet()
    names = [name for name in net.state_dict() if "num_batches" not in name]
    net.load_state_dict(dict(zip(names, arrays, strict=True)), strict=False)
    return Normalised(net).eval()


def left(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, attacks: list[torchattacks.attack.Attack]) -> list[int]:
    """How many answers are right without an attack, and after each."""
    with torch.no_grad():
        standing = torch.nonzero(net(x).argmax(1) == y)[:, 0]
    found = [len(standing)]
    for each in attacks:
        if len(standing):
            with torch.no_grad():
                answers = [net(each(x[part], y[part])).argmax(1) == y[part] for part in standing.split(50)]
            standing = standing[torch.cat(answers)]
        found.append(len(standing))
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--root", default="data")
    p.add_argument("--weights", required=True)
    p.add_argument("--key")
    p.add_argument("--prefix", default="")
    p.add_argument("--count", type=int, default=500)
    p.add_argument("--norm", choices=("linf", "l2"), default="linf")
    p.add_argument("--eps", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 8])
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--candidates", type=int, default=9)
    p.add_argument("--squares", type=int, default=1000)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    images, labels = (t[: args.count] for t in read(args.root, ["test_batch"]))
    x, theirs, ours = images.float() / 255, peer(args.weights, args.key), models.resnet20()
    weights.load(ours, args.weights, key=args.key, prefix=args.prefix)
    unit, norm = (255, "Linf") if args.norm == "linf" else (1, "L2")
    print("eps | torchattacks: clean, APGD-CE, APGD-T, Square | s | ours: clean, " + "after each | s")
    for size in args.eps:
        eps, more, start = size / unit, {"norm": norm, "eps": size / unit, "seed": 0}, time.perf_counter()
        attacks = [
            torchattacks.APGD(theirs, steps=args.steps, loss="ce", **more),
            torchattacks.APGDT(theirs, steps=args.steps, n_classes=args.candidates + 1, **more),
            torchattacks.Square(theirs, n_queries=args.squares, **more),
        ]
        counts, middle = left(theirs, x, labels, attacks), time.perf_counter()
        found = attack.robust_accuracy(
            ours.eval(), x.numpy(), labels.numpy(), eps, norm=args.norm, steps=args.steps, candidates=args.candidates,
            squares=args.squares, mean=MEAN, std=STD, batch_size=50,
        )  # fmt: skip
        broken = np.cumsum(list(found.counts.values()))
        end = time.perf_counter()
        print(f"{size:g} | {counts} | {middle - start:.0f} | {(len(x) - broken).tolist()} | {end - middle:.0f}", flush=True)


if __name__ == "__main__":
    main()
