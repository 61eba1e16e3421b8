"""A large image and a small lesion: what is lost where the image is made smaller, and three ways to keep it.

    python examples/big_images.py

draws grey images of 512x512 pixels, half of them with a lesion of 16, among distractors that are the same but larger, and has
one small net learn which is which:

    resized           the images are made 64x64, as is often done: the lesion is gone
    tiles             the net learns from patches of 32x32, whose label the mask tells, and is asked at tiles of 32x32 that
                      overlap by half, so that one of them holds the whole lesion: the largest score is that of the image
    sliding window    the same, asked at every window, 8 pixels from one to the next (`inference.sliding_window`)
    top-k             the net sees whole images, with nothing but their labels (`nn.TopKPool2d`); `ops.recompute` keeps
                      one layer at a time in memory

The net is the same each time: three convolutions make 32 features of each 8x8 pixels, of each feature the mean of the nine
highest places is taken, and a linear layer weighs these. What it makes of the features of each place is a map of scores, which
says where: is its highest pixel in the lesion?

Three things let labels of whole images be enough. Each feature has highest places of its own, so that some of them see the
lesion from the start, where one score would have one set. The linear layer begins with zeros, so that the convolutions stay as
they are until it knows which features to listen to. And each batch has as many images of either class, so that what all images
have in common cancels.

A way's training and test run in a process of their own, whose memory is measured. The images are files on disk, read batch by
batch (`image_folder(lazy=True)`).

In the folder of the study, by default runs/big_images-SIZE, are then

    big_images.png    an image with its lesion, the map of each way, and what they reach and cost
    table.md          the same as numbers
    rows/             a file for each way that is done: the same command goes on from there

Larger images take four times as long:

    python examples/big_images.py --size 1024
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import io
import multiprocessing
import pathlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import compare
import numpy as np
from dense_or_residual import peak_memory

from minidl import Tensor, arguments, data, evaluate, inference, metrics, nn, no_grad, ops, weights
from minidl.array import Array
from minidl.bar import Bar
from minidl.data import Compose, Dataset, Loader, Normalize, RandomFlip
from minidl.io import files, lock
from minidl.metrics import Interval
from minidl.optim import AdamW, one_cycle
from minidl.train import Settings, train_epoch
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE

RESIZED, TILES, WINDOW, TOP_K = "resized", "tiles", "sliding window", "top-k"
CLASSES = "healthy", "lesion"  # of the even and of the odd images
COLOURS = {RESIZED: GREY, TILES: "#6ba3d6", WINDOW: BLUE, TOP_K: ORANGE}
CELL = 8  # pixels for each place, from one stride and two poolings
TOP = 9  # places that see a whole lesion of 16 pixels
SMALL = 64  # pixels of the resized images
NEGATIVES = 16  # patches without a lesion from each image
LR = 0.01
BATCH = {RESIZED: 8, TILES: 64, WINDOW: 64, TOP_K: 4}
LONGER = {RESIZED: 4, TILES: 4, WINDOW: 4, TOP_K: 1}  # times the epochs


@dataclass(frozen=True)
class Plan:
    size: int = 512
    diameter: int = 16
    train: int = 100
    test: int = 100
    epochs: int = 8
    seed: int = 0  # of the weights and of the order of the images

    @property
    def window(self) -> int:
        return 2 * self.diameter


QUICK = Plan(size=256, train=8, test=16, epochs=1)


class Net(nn.Module):
    """(N,1,H,W) -> of a score z the logits (-z/2, z/2), (N,2): z weighs the mean of the highest places of each feature"""

    def __init__(self, recomputed: bool = False, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.ReLU()),
        )
        self.pool = nn.TopKPool2d(TOP)
        self.linear = nn.Linear(32, 1, init=lambda shape, rng: np.zeros(shape, np.float32))
        self.recomputed = recomputed

    def features(self, x: Tensor) -> Tensor:
        """(N,32,H/8,W/8), each of 33x33 pixels"""
        for block in self.blocks:
            x = ops.recompute(block, x) if self.recomputed else block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(self.pool(self.features(x)))
        return ops.concat([-0.5 * z, 0.5 * z], axis=1)

    def map(self, x: Tensor) -> Tensor:
        """What the linear layer makes of each place, (N,1,H/8,W/8): Zhou et al. 2016's class activation map"""
        return ops.conv2d(self.features(x), ops.reshape(self.linear.weight, (1, -1, 1, 1)), self.linear.bias)


class Pairs(Loader):
    """Batches with as many images of either class, up to one; with shuffle=False, for the order is drawn here."""

    def __iter__(self) -> Iterator[tuple[Array, Any]]:
        rng, labels = np.random.default_rng((self.seed, self.epoch)), self.dataset.labels
        each = [np.resize(rng.permutation(np.flatnonzero(labels == k)), (len(labels) + 1) // 2) for k in (0, 1)]
        self.drawn = np.stack(each, 1).ravel()  # of either class in turn
        return super().__iter__()

    def _batch(self, pick: Array, rng: np.random.Generator) -> tuple[Array, Any]:
        return super()._batch(self.drawn[pick], rng)


class Found(NamedTuple):
    """Of one way: what it says of the test images, and what it costs."""

    scores: Array  # (N,)
    labels: Array  # (N,)
    hits: Array  # (n,) of the n images with a lesion, whether the highest pixel is in it
    chance: Array  # (n,)
    shown: Array  # (H,W) the map of the first image with a lesion
    seconds: float  # of the training
    train_peak: float  # MiB of the process, with its training
    peak: float  # and with the test

    @property
    def auc(self) -> Interval:
        return metrics.bootstrap_score(metrics.auc, self.scores, self.labels)


def main(argv: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(argv)

    def locked() -> None:
        plan = plan_of(args)
        out = pathlib.Path(args.out or f"runs/big_images-{plan.size}")
        with lock.hold(out):
            files.remove_leftovers(out, ("big_images.png", "table.md"))
            run(plan, out)

    return guard.guarded(locked, lambda: "Stopped. The same command goes on after the last finished way.")


def run(plan: Plan, out: pathlib.Path) -> None:
    what = f"lesions of {plan.diameter} pixels in {plan.size}x{plan.size}: "
    what += f"{plan.train:,} images to learn from, {plan.test:,} to test on"
    print(f"{what}; everything goes into {out}", flush=True)
    for part in ("train", "test"):
        draw_images(plan, out, part)
    found = {}
    for way in WAYS:
        found[way] = at_hand(way, plan, out)
        print(f"{way}: AUC {found[way].auc}, {found[way].seconds:.0f} s of training", flush=True)
    steps = {kept: step_peak(plan, out, kept) for kept in (True, False)}
    text = table(found)
    told = (
        f"A step of the top-k net, {BATCH[TOP_K]} images at a time: {steps[True]:,.0f} MiB, recomputed {steps[False]:,.0f} MiB."
    )
    text = f"{text}\n{told}\n"
    files.write(out / "table.md", text)
    first = first_lesion(plan, out)
    draw(out / "big_images.png", *first, found, what[0].upper() + what[1:])
    print(f"{text}now look at {out / 'big_images.png'}")


# ---- the images


def folder_of(plan: Plan, out: pathlib.Path, part: str) -> pathlib.Path:
    return out / f"{part}-{getattr(plan, part)}-{plan.size}-{plan.diameter}"


def draw_images(plan: Plan, out: pathlib.Path, part: str) -> None:
    """One file an image, images/CLASS/NUMBER.npy, and its mask, masks/NUMBER.npy; those that are there stay."""
    folder, seed = folder_of(plan, out, part), {"train": 0, "test": 1}[part]
    for i in Bar(range(getattr(plan, part)), desc=f"drawing the {part} images", leave=False, disable=None):
        image, mask = folder / "images" / CLASSES[i % 2] / f"{i:05}.npy", folder / "masks" / f"{i:05}.npy"
        if image.exists():
            continue
        one = data.spots(1, plan.size, plan.diameter, seed, first=i)
        for path, array in (mask, one.masks["lesion"][0]), (image, one.images[0, 0]):
            path.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.save(content, array)
            files.write(path, content.getvalue())


def images_of(plan: Plan, out: pathlib.Path, part: str, size: int | None = None) -> Dataset:
    """The images, left on disk."""
    return data.image_folder(folder_of(plan, out, part) / "images", size and (size, size), lazy=True)


def mask_of(plan: Plan, out: pathlib.Path, part: str, name: Any) -> Array:
    """(H,W) bool, of the image of that name"""
    mask: Array = np.load(folder_of(plan, out, part) / "masks" / pathlib.Path(name).name)
    return mask


def first_lesion(plan: Plan, out: pathlib.Path) -> tuple[Array, Array]:
    """Image and mask (H,W) of the first test image with a lesion."""
    test = images_of(plan, out, "test")
    i = int(np.argmax(test.labels == 1))
    assert test.names is not None
    return test.images[i][0], mask_of(plan, out, "test", test.names[i])


# ---- the ways


def resized(plan: Plan, out: pathlib.Path) -> Found:
    train_set = images_of(plan, out, "train", SMALL)
    net, normalize, seconds = trained(RESIZED, train_set, plan)
    return tested(plan, out, images_of(plan, out, "test", SMALL), seconds, lambda x: score_and_map(net, normalize(x)))


def tiles(plan: Plan, out: pathlib.Path) -> Found:
    return by_patches(TILES, plan, out, plan.window - plan.diameter)


def sliding_window(plan: Plan, out: pathlib.Path) -> Found:
    return by_patches(WINDOW, plan, out, CELL)


def by_patches(way: str, plan: Plan, out: pathlib.Path, stride: int) -> Found:
    net, normalize, seconds = trained(way, patches_of(plan, out), plan)

    def ask(x: Array) -> tuple[float, Array]:
        logits = inference.sliding_window(net, normalize(x), plan.window, stride, batch_size=64)[0]  # (2,h,w)
        scores = logits[1] - logits[0]
        return float(scores.max()), mean_of_windows(scores, plan.window // stride)

    return tested(plan, out, images_of(plan, out, "test"), seconds, ask)


def top_k(plan: Plan, out: pathlib.Path) -> Found:
    net, normalize, seconds = trained(TOP_K, images_of(plan, out, "train"), plan, recomputed=True)
    return tested(plan, out, images_of(plan, out, "test"), seconds, lambda x: score_and_map(net, normalize(x)))


WAYS: dict[str, Callable[[Plan, pathlib.Path], Found]] = {
    RESIZED: resized,
    TILES: tiles,
    WINDOW: sliding_window,
    TOP_K: top_k,
}


def patches_of(plan: Plan, out: pathlib.Path) -> Dataset:
    """Every window that holds a whole lesion, and from each image some that hold nothing of one."""
    rng, images, labels = np.random.default_rng(0), list[Array](), list[Array]()
    whole = images_of(plan, out, "train")
    assert whole.names is not None
    for image, name in zip(whole.images, Bar(whole.names, desc="cutting patches", leave=False, disable=None), strict=True):
        mask = mask_of(plan, out, "train", name)
        inside = inference.tiles(mask[None], plan.window, CELL).sum((1, 2, 3))  # pixels of the lesion in each window
        positive = np.flatnonzero((inside == mask.sum()) & (inside > 0))
        negative = rng.permutation(np.flatnonzero(inside == 0))[:NEGATIVES]
        images.append(inference.tiles(image, plan.window, CELL)[np.concatenate([positive, negative])])
        labels.append(np.repeat([1, 0], [len(positive), len(negative)]))
    return Dataset(np.concatenate(images), np.concatenate(labels), CLASSES, name=f"patches {plan.window}x{plan.window}")


def trained(way: str, train_set: Dataset, plan: Plan, recomputed: bool = False) -> tuple[Net, Normalize, float]:
    """The net, trained, how its images are normalised, and seconds; as many images of either class are drawn."""
    settings = Settings(plan.epochs * LONGER[way], min(BATCH[way], len(train_set)), LR, warmup=0.1)
    normalize = Normalize(*train_set.mean_std())
    augment = Compose([*(RandomFlip(axis=axis) for axis in ("horizontal", "vertical")), normalize])
    begun = time.perf_counter()
    net = Net(recomputed, plan.seed)
    loader = Pairs(train_set, settings.batch_size, shuffle=False, augment=augment, seed=plan.seed, drop_last=True)
    optimizer = AdamW(net.parameters(), LR)
    schedule = one_cycle(LR, settings.epochs * len(loader), settings.warmup)
    for epoch in range(settings.epochs):
        train_epoch(net, loader, optimizer, schedule, epoch, settings)
    return net, normalize, time.perf_counter() - begun


@no_grad()
def score_and_map(net: Net, x: Array) -> tuple[float, Array]:
    """What a net says of one image x (1,1,H,W), and its map (h,w), the mean over the four mirror images and then 3x3 places.

    A place sees what is beside it, too: of the places that see a lesion, any may be the highest.
    """
    with net.evaluating():
        logits, maps = net(Tensor(x)).data[0], list[Array]()
        for axes in (), (2,), (3,), (2, 3):
            mirrored = np.ascontiguousarray(np.flip(x, axes))
            maps.append(np.flip(net.map(Tensor(mirrored)).data, axes)[0, 0])
    padded = np.pad(np.mean(maps, 0), 1, mode="edge")
    return float(logits[1] - logits[0]), np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).mean((2, 3))


def mean_of_windows(scores: Array, cells: int) -> Array:
    """Scores (h,w) of windows that are so many cells high and wide -> for each cell the mean of all windows that it lies in."""
    h, w = scores.shape
    total, windows = np.zeros((2, h + cells - 1, w + cells - 1), np.float32)
    for i in range(cells):
        for j in range(cells):
            total[i : i + h, j : j + w] += scores
            windows[i : i + h, j : j + w] += 1
    return total / windows


def tested(
    plan: Plan, out: pathlib.Path, test_set: Dataset, seconds: float, ask: Callable[[Array], tuple[float, Array]]
) -> Found:
    """The answers to the test images, one at a time: ask(x (1,1,h,w)) -> the score, and a map of any size."""
    train_peak, scores, hits, chance, shown = peak_mib(), list[float](), list[float](), list[float](), list[Array]()
    assert test_set.names is not None
    for i, name in enumerate(Bar(test_set.names, desc="the test images", leave=False, disable=None)):
        score, found = ask(test_set.images[i : i + 1])
        scores.append(score)
        if test_set.labels[i] == 1:
            whole = ops.resize(Tensor(found[None, None]), plan.size).data[0]  # (1,H,W)
            pointing = evaluate.pointing_game(whole, mask_of(plan, out, "test", name)[None])
            hits.append(float(pointing.value[0]))
            chance.append(float(pointing.chance[0]))
            shown.append(whole[0]) if not shown else None
    return Found(np.array(scores), test_set.labels, np.array(hits), np.array(chance), shown[0], seconds, train_peak, peak_mib())


# ---- processes


def at_hand(way: str, plan: Plan, out: pathlib.Path) -> Found:
    """What this way gave the last time that the plan was the same, or gives now, in a process of its own."""
    path, same = out / "rows" / f"{WAYS[way].__name__}.safetensors", repr(plan)
    if path.exists():
        try:
            arrays, about = weights.load_arrays(path)
            if about.get("of") == same:
                return Found(**arrays, **{name: float(about[name]) for name in NUMBERS})
        except (ValueError, KeyError, TypeError):  # damaged: once more
            pass
    found = alone(WAYS[way], plan, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(path.parent, [path.name])
    arrays = {name: a for name, a in found._asdict().items() if name not in NUMBERS}
    weights.save_arrays(path, arrays, {"of": same} | {name: repr(getattr(found, name)) for name in NUMBERS})
    return found


NUMBERS = ("seconds", "train_peak", "peak")


def alone(f: Callable[..., Any], *arguments: Any) -> Any:
    """f(*arguments) in a new process: what others held does not count."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), guard.end_with_parent) as process:
        with guard.children():
            result = process.submit(f, *arguments)
        return result.result()


def step_peak(plan: Plan, out: pathlib.Path, kept: bool) -> float:
    """MiB that a process takes for steps of the top-k net, whose activations are kept or recomputed."""
    path = out / "rows" / f"step-{'kept' if kept else 'recomputed'}-{plan.size}.json"
    if not path.exists():
        files.write(path, repr(alone(steps, plan.size, kept)))
    return float(path.read_text())


def steps(size: int, kept: bool) -> float:
    net, rng = Net(recomputed=not kept), np.random.default_rng(0)
    x, labels = rng.standard_normal((BATCH[TOP_K], 1, size, size), np.float32), np.arange(BATCH[TOP_K]) % 2
    optimizer = AdamW(net.parameters(), LR)
    for _ in range(2):
        optimizer.zero_grad()
        ops.cross_entropy(net(Tensor(x)), labels).backward()
        optimizer.step()
    return peak_mib()


def peak_mib() -> float:
    return peak_memory(np.empty(0)) / 2**20


# ---- what is written

HEAD = ("way", "AUC", "highest pixel in the lesion", "chance", "s of training", "peak MiB", "with the test")


def table(found: dict[str, Found]) -> str:
    lines = []
    for way, f in found.items():
        numbers = (f"{f.seconds:,.0f}", f"{f.train_peak:,.0f}", f"{f.peak:,.0f}")
        lines.append([way, str(f.auc), str(metrics.bootstrap(f.hits)), f"{f.chance.mean():.4f}", *numbers])
    return compare.table(HEAD, lines)


def draw(path: pathlib.Path, image: Array, mask: Array, found: dict[str, Found], title: str) -> None:
    """The image with its lesion, and the map of each way; below what they reach, with 95% intervals, and cost."""
    from matplotlib.patches import Circle
    from matplotlib.ticker import MaxNLocator

    fig = figure.new(13, 5.4, w_pad=0.06, h_pad=0.06)
    above, below = fig.subfigures(2, 1, height_ratios=(3, 2))
    cells = above.subplots(1, 5)
    y, x = (float(axis.mean()) for axis in np.nonzero(mask))
    for ax, (name, shown) in zip(
        cells, {"the image, its lesion in the circle": None, **{w: f.shown for w, f in found.items()}}.items(), strict=True
    ):
        ax.imshow(image if shown is None else shown, cmap="gray" if shown is None else "magma", interpolation="nearest")
        ax.add_patch(Circle((x, y), 0.045 * len(image), fill=False, ec="#00b4d8", lw=1.3))
        ax.set_title(name if shown is None else f"{name}: map of scores", fontsize=9.5, loc="left")
        ax.set_xticks([]), ax.set_yticks([])
    auc, hit, seconds, memory = below.subplots(1, 4)
    rows = [(f.auc, metrics.bootstrap(f.hits)) for f in found.values()]
    for ax, intervals, name in (
        (auc, [a for a, _ in rows], "AUC"),
        (hit, [h for _, h in rows], "points at the lesion"),
    ):
        mean = np.array([i.mean for i in intervals])
        ends = np.array([[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]])
        ax.barh(list(found), mean, 0.62, color=[COLOURS[w] for w in found], xerr=ends, error_kw={"lw": 1.2, "capsize": 2.5})
        ax.set_xlim(0, 1.05)
        ax.set_title(f"{name}, 95% interval", fontsize=9.5, loc="left")
    auc.axvline(0.5, color="black", lw=1, ls=":")
    for ax, values, name in (
        (seconds, [f.seconds for f in found.values()], "training (s)"),
        (memory, [f.peak for f in found.values()], "peak memory (MiB)"),
    ):
        ax.barh(list(found), values, 0.62, color=[COLOURS[w] for w in found])
        for i, value in enumerate(values):
            ax.text(value, i, f" {value:,.0f}", va="center", fontsize=9)
        ax.set_xlim(0, 1.25 * max(values))
        ax.set_title(name, fontsize=9.5, loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    for ax in auc, hit, seconds, memory:
        ax.invert_yaxis()
        ax.set_axisbelow(True)
        ax.grid(axis="x", color="#e6e6e6", lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=GREY, labelsize=9)
        ax.tick_params(axis="y", length=0, colors="black")
        if ax is not auc:
            ax.set_yticks([])
    figure.title(fig, title)
    figure.save(fig, path)


# ---- what is asked for


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan, with what was asked for in its place. Raises ValueError for what cannot be."""
    asked = {name: value for name in ("size", "train", "test", "epochs", "seed") if (value := getattr(args, name)) is not None}
    plan = replace(QUICK if args.quick else Plan(), **asked)
    for name, least in {"size": 16 * plan.diameter, "train": 4, "test": 4, "epochs": 1, "seed": 0}.items():
        arguments.count(getattr(plan, name), f"--{name}", least)
    if plan.size % SMALL:
        raise ValueError(f"--size: expected a multiple of {SMALL}, got {plan.size}")
    return plan


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=int, help="height and width of the images; by default 512")
    p.add_argument("--train", type=int, help="images to learn from; by default 100")
    p.add_argument("--test", type=int, help="images to test on; by default 100")
    p.add_argument("--epochs", type=int, help="by default 8")
    p.add_argument("--seed", type=int, help="of the weights and of the order of the images; by default 0")
    p.add_argument("--quick", action="store_true", help="few small images, to see whether it runs")
    p.add_argument("--out", help="the folder of this study; by default runs/big_images-SIZE")
    return p


if __name__ == "__main__":
    guard.script(main)
