"""CIFAR-10 to 94% as fast as it goes: on a GPU a matter of seconds, on a CPU of an hour or two.

    python examples/fast_cifar.py --device gpu --cuda-graph --root data

The recipe is that of Keller Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (airbench94), written anew. What
makes it fast, from the image to the last step:

    whitening    the first convolution is no guess: its 2x2 filters are the principal components of the training patches,
                 divided by their spread, so that its outputs are uncorrelated from the first step on; only its bias learns
    small net    six 3x3 convolutions in three groups, each pooled at once, with batch norm without weights, and GELU; the
                 first filters of each convolution begin as the identity
    optimiser    SGD with Nesterov's momentum; the biases of the norms learn 64 times as fast; the rate rises from 20% to its
                 peak over 23% of the steps and falls to 7%
    lookahead    every 5 steps the weights jump to their own running mean, which follows more and more slowly
    images     shifted by up to 2 pixels, the border mirrored; in every other epoch the other half of them is flipped, so that
                 two epochs show every image both ways
    labels       smoothed by 0.2
    test         the mean over six views: flipped or not, shifted by a pixel or not

All images are on the device from the beginning. `--width` and `--limit` make a small net and a small set, for a try.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minidl import LossScale, Parameter, Tensor, data, metrics, mixed, nn, no_grad, ops
from minidl.array import Array, array_module, to_cpu, to_device
from minidl.data import Dataset, Normalize
from minidl.mixed import PRECISIONS
from minidl.optim import SGD
from minidl.train.cuda_graph import CapturedGradients

PEAK = 11.5 / (1024 * (1 + 1 / (1 - 0.85)))  # of the learning rate, per image of a batch
DECAY = 0.0153 / 11.5  # of the weights
BIAS = 64  # times the learning rate of the rest, for the biases of the norms


@dataclass(frozen=True)
class Recipe:
    epochs: int = 10
    batch_size: int = 1024
    width: float = 1.0  # times 64, 256 and 256 channels
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not 0 < self.width <= 4:
            raise ValueError(f"epochs, batch_size, width: expected 1, 2 and 0 or more (up to 4), got {self}")
        if self.cuda_graph and self.device != "gpu":
            raise ValueError(f"cuda_graph: needs device 'gpu', got {self.device!r}")


# ---- the net


class Group(nn.Module):
    """gelu(norm(conv(gelu(norm(pool(conv(x)))))))"""

    def __init__(self, channels: int, out: int, rng: np.random.Generator) -> None:
        self.conv1, self.norm1 = conv(channels, out, rng), norm(out)
        self.conv2, self.norm2 = conv(out, out, rng), norm(out)

    def forward(self, x: Tensor) -> Tensor:
        x = ops.gelu(self.norm1(ops.max_pool2d(self.conv1(x), 2)))
        return ops.gelu(self.norm2(self.conv2(x)))


class Net(nn.Module):
    """(N,3,32,32) -> (N,classes)"""

    def __init__(self, filters: Array, classes: int, width: float, rng: np.random.Generator) -> None:
        widths = [len(filters), *(max(len(filters), round(width * w)) for w in (64, 256, 256))]
        self.whiten = nn.Conv2d(filters.shape[1], len(filters), filters.shape[2], rng=rng)  # (N,24,31,31)
        self.whiten.weight = Parameter(filters)
        self.whiten.weight.requires_grad = False
        self.groups = nn.Sequential(*(Group(c, f, rng) for c, f in pairwise(widths)))  # (N,256,3,3)
        self.linear = nn.Linear(widths[-1], classes, bias=False, rng=rng, init=nn.init.fan_in_uniform)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(ops.gelu(self.whiten(x)))
        return self.linear(ops.flatten(ops.max_pool2d(x, 3))) * (1 / 9)


def conv(channels: int, out: int, rng: np.random.Generator) -> nn.Conv2d:
    """3x3; the first `channels` filters begin as the identity."""
    layer = nn.Conv2d(channels, out, 3, padding=1, bias=False, rng=rng, init=nn.init.fan_in_uniform)
    layer.weight.data[:channels] = 0
    layer.weight.data[np.arange(channels), np.arange(channels), 1, 1] = 1
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


def whitening_filters(x: Array, size: int = 2, eps: float = 5e-4) -> Array:
    """±v / sqrt(lambda + eps) for each eigenvector v of the covariance of the patches of x: (N,C,H,W) -> (F,C,size,size)"""
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))  # (N,C,H-1,W-1,size,size)
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * size * size)
    eigenvalues, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / np.sqrt(eigenvalues + eps)).T[::-1]  # the largest eigenvalue first
    return np.concatenate([filters, -filters]).reshape(-1, x.shape[1], size, size).astype(np.float32)


# ---- the images


def shifted(x: Array, top: Array, left: Array, flip: Array) -> Array:
    """y[n,c,i,j] = x[n, c, i + top[n], j + left[n]], the border mirrored, and from right to left where flip[n]"""
    xp, (N, C, H, W) = array_module(x), x.shape
    rows, columns = _mirrored(np.arange(H) + top[:, None], H), _mirrored(np.arange(W) + left[:, None], W)  # (N,H) (N,W)
    columns[flip] = columns[flip, ::-1]
    n, c = xp.arange(N)[:, None, None, None], xp.arange(C)[:, None, None]
    return x[n, c, xp.asarray(rows)[:, None, :, None], xp.asarray(columns)[:, None, None, :]]


def _mirrored(i: Array, length: int) -> Array:
    """-1 -> 1, length -> length - 2"""
    return (length - 1) - abs((length - 1) - abs(i))


def batches(x: Array, labels: Array, recipe: Recipe, epoch: int) -> Iterator[tuple[Array, Array]]:
    """Shuffled, shifted, and flipped in every other epoch; the last images, too few for a batch, are left out."""
    flips = np.random.default_rng((recipe.seed, 1)).random(len(x)) < 0.5
    rng = np.random.default_rng((recipe.seed, 2, epoch))
    order, moves = rng.permutation(len(x)), rng.integers(-2, 3, (2, len(x)))
    for start in range(0, len(x) - recipe.batch_size + 1, recipe.batch_size):
        pick = order[start : start + recipe.batch_size]
        place = to_device(pick, recipe.device)
        yield shifted(x[place], *moves[:, pick], flips[pick] ^ bool(epoch % 2)), labels[place]


# ---- training


class Lookahead:
    """At every fifth step m <- d m + (1 - d) p and p <- m, and p <- m at the last; d grows to 0.95^5 with the steps"""

    def __init__(self, model: nn.Module, total: int) -> None:
        self.model, self.total, self.mean = model, total, [a.copy() for a in _state(model)]

    def after(self, step: int) -> None:
        """`step` counts from 1."""
        d = 0.95**5 * (step / self.total) ** 3 if step % 5 == 0 else 1.0
        if step % 5 == 0 or step == self.total:
            for m, p in zip(self.mean, _state(self.model), strict=True):
                m *= m.dtype.type(d)
                m += p * m.dtype.type(1 - d)
                p[...] = m


def _state(model: nn.Module) -> list[Array]:
    """What changes in training: parameters and running statistics"""
    return [p.data for p in model.parameters()] + [a for _, a in model.named_buffers() if a.dtype.kind == "f"]


def loss_of(logits: Tensor, labels: Array) -> Tensor:
    return ops.cross_entropy(logits, labels, label_smoothing=0.2)


def train(train_set: Dataset, recipe: Recipe) -> tuple[nn.Module, Normalize, list[float]]:
    """The net, how its images are normalised, and the mean loss of each epoch. Raises ValueError for too few images."""
    if len(train_set) < recipe.batch_size:
        raise ValueError(f"batch_size: {recipe.batch_size} is more than the {len(train_set)} training images")
    normalize = Normalize(*train_set.mean_std())
    rng = np.random.default_rng(recipe.seed)
    model = Net(whitening_filters(normalize(train_set.images[:5000])), len(train_set.classes), recipe.width, rng)
    model.to(recipe.device)
    learning = [p for p in model.parameters() if p.requires_grad]
    biases = [module.bias for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    rest = [p for p in learning if p not in biases]
    optimizers = [SGD(rest, 0, 0.85, True, DECAY), SGD(biases, 0, 0.85, True, DECAY / BIAS)]
    x, labels = normalize(to_device(train_set.images, recipe.device)), to_device(train_set.labels, recipe.device)

    per_epoch = len(x) // recipe.batch_size
    total, step, losses = recipe.epochs * per_epoch, 0, []
    lookahead, scale = Lookahead(model, total), LossScale() if recipe.precision == "float16" else None
    captured = CapturedGradients(model, loss_of, scale) if recipe.cuda_graph else None
    for epoch in range(recipe.epochs):
        if epoch == 3:  # the bias of the whitening has found its place
            model.whiten.bias.requires_grad = False
            captured = captured and CapturedGradients(model, loss_of, scale)
        sums = 0.0 * labels[0]  # on the device: nothing waits for it within an epoch
        for batch, target in batches(x, labels, recipe, epoch):
            rate = PEAK * recipe.batch_size * float(np.interp(step, [0, 0.23 * total, total], [0.2, 1, 0.07]))
            optimizers[0].lr, optimizers[1].lr = rate, rate * BIAS
            for optimizer in optimizers:
                optimizer.zero_grad()
            with mixed(recipe.precision):
                if captured is not None:
                    loss, _ = map(Tensor, captured(batch, target))
                else:
                    loss = loss_of(model(batch), target)
            if captured is None and scale is None:
                loss.backward()
            if scale is None or (scale.backward(loss) if captured is None else scale.unscale(learning)):
                for optimizer in optimizers:
                    optimizer.step()
            step += 1
            lookahead.after(step)
            sums = sums + loss.data
        losses.append(float(sums) / per_epoch)
    return model, normalize, losses


@no_grad()
def accuracy(model: nn.Module, test_set: Dataset, normalize: Normalize, device: str, size: int = 1000) -> float:
    """The share that is right by the mean over six views: flipped or not, as it is (twice as heavy) or shifted by a pixel."""
    right = 0
    with model.evaluating():
        for start in range(0, len(test_set), size):
            x = normalize(to_device(test_set.images[start : start + size], device))
            logits = 0.0
            for shift, heavy in ((0, 2), (-1, 1), (1, 1)):
                move, flip = np.full(len(x), shift), np.zeros(len(x), bool)
                logits = logits + heavy * sum(model(shifted(x, move, move, f)).data for f in (flip, ~flip))
            right += int((to_cpu(logits).argmax(1) == test_set.labels[start : start + size]).sum())
    return right / len(test_set)


def run(train_set: Dataset, test_set: Dataset, recipe: Recipe) -> dict[str, float]:
    """Train and test. On a GPU one short training goes before the one that is timed: it compiles the kernels."""
    if recipe.device == "gpu":
        few = train_set.take(np.arange(2 * recipe.batch_size))
        train(few, Recipe(4, recipe.batch_size, recipe.width, recipe.seed, "gpu", recipe.precision, recipe.cuda_graph))
    start = time.perf_counter()
    model, normalize, losses = train(train_set, recipe)  # its losses are read, so the GPU is done
    seconds = time.perf_counter() - start
    right = accuracy(model, test_set, normalize, recipe.device)
    majority = metrics.majority_accuracy(test_set.labels)
    return {
        "seconds": seconds,
        "accuracy": right,
        "majority_accuracy": majority,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--root", default="data", help="the folder that holds CIFAR-10; fetched if it is not there (170 MB)")
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--batch-size", type=int, default=1024)
    p.add_argument("--width", type=float, default=1.0, help="times as many channels")
    p.add_argument("--limit", type=int, help="take only the first LIMIT images of each set, for a quick try")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    p.add_argument("--precision", choices=PRECISIONS, default="float32")
    p.add_argument("--cuda-graph", action="store_true", help="each step as one graph of kernels: sooner")
    asked = vars(p.parse_args(arguments))
    root, limit = asked.pop("root"), asked.pop("limit")

    def both() -> None:
        recipe = Recipe(**asked)
        sets = data.cifar10(root, download=True), data.cifar10(root, train=False)
        found = run(*(s.take(np.arange(min(limit or len(s), len(s)))) for s in sets), recipe)
        print("{accuracy:.2%} of the test images right (always the largest class: {majority_accuracy:.1%}) "
              "after {seconds:.1f} s of training; "
              "loss {first_loss:.3f} in the first epoch, {last_loss:.3f} in the last".format(**found))  # fmt: skip

    return guard.guarded(both)


if __name__ == "__main__":
    guard.script(main)
