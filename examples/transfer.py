"""What does a net that was trained on other images know about yours, and for how few images does that matter?

    python examples/transfer.py --root HAM10000 --weights resnet20-12fca82f.th --key state_dict --prefix module.

takes a ResNet-20 that was trained on CIFAR-10, aeroplanes to trucks, and has it tell benign from malignant skin lesions after
50, 100, 200, 1,000 and 5,000 images of HAM10000. The net learns in four ways, and in a fifth only a line is drawn through
what it sees:

    fine-tuned        all of its weights go on learning
    frozen            all but its last layer stay as they are, batch norm in evaluation
    body at a tenth   all but its last layer learn at a tenth of the rate
    from scratch      the same net with drawn weights
    ridge             no step is taken: ridge regression on the mean and the spread of each channel, of all stages

Each way and number of images has five draws. A draw puts the lesions into an order, and takes its first images of each class,
in the proportion that all have: so 100 images hold those of 50. The learning rate, that of ridge regression its weight decay,
is chosen once for each way and number, on other lesions (of the training, a fifth, by the first draw). What counts is the AUC
on the lesions of the test.

In the folder of the run, by default runs/transfer-DATA, are then

    transfer.png    AUC over the number of images, a line for each way, bars from the lowest to the highest of the draws
    table.md        the same as numbers
    rows/           a file for each finished training: the same command goes on from there

Draw by draw everything is drawn anew, so that whoever stops has all numbers of images, of fewer draws. Other nets are asked at
200 images with --also, and one that was trained here with --own. Grey images of the chest, of MedMNIST:

    python examples/transfer.py --data medmnist --root pneumoniamnist.npz --weights resnet20-12fca82f.th --key state_dict \\
        --prefix module. --count 50 200
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import hashlib
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import compare
import numpy as np
import train as training  # examples/train.py

from minidl import Tensor, arguments, data, inference, metrics, no_grad
from minidl.analysis import watch
from minidl.arguments import one_of
from minidl.array import Array
from minidl.data import Compose, Dataset, Loader, Normalize, RandomCrop, RandomFlip
from minidl.io import files, lock
from minidl.nn import Module
from minidl.optim import SGD, constant, one_cycle
from minidl.train import Row, Settings, load_run, start_from, train_epoch
from minidl.train.transfer import heads, parameter_groups
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE, RED

TUNED, FROZEN, SLOW, SCRATCH, RIDGE = "fine-tuned", "frozen", "body at a tenth", "from scratch", "ridge"
RATES: dict[str, tuple[float, ...]] = {  # to choose from
    TUNED: (0.01, 0.03),
    FROZEN: (0.1, 0.3),
    SLOW: (0.03, 0.1),
    SCRATCH: (0.03, 0.1),
    RIDGE: (0.03, 0.3, 3.0, 30.0),  # its weight decays
}
COLOURS = {TUNED: ORANGE, FROZEN: GREY, SLOW: RED, SCRATCH: BLUE, RIDGE: "black"}
ALSO = 200  # images for the other nets
WEIGHTS = "model.safetensors"  # of a run


@dataclass(frozen=True)
class Plan:
    counts: tuple[int, ...] = (50, 100, 200, 1000, 5000)
    draws: int = 5
    steps: int = 100  # of a training on up to 200 images, see `steps_of`
    batch_size: int = 16


Scores = Callable[[Array], Array]  # images (N,C,H,W) -> (N,), the higher the likelier of the second class

QUICK = Plan((16, 32), draws=2, steps=3, batch_size=8)


class Start(NamedTuple):
    """A net, and the published weights that it begins with."""

    name: str  # in the table
    model: str
    weights: str
    key: str | None = None
    prefix: str = ""


class Sets(NamedTuple):
    train: Dataset
    validation: Dataset
    test: Dataset


class Training(NamedTuple):
    """One of all those that there are."""

    start: Start
    way: str
    count: int
    draw: int
    lr: float  # of ridge regression the weight decay

    def __str__(self) -> str:
        told = "decay" if self.way == RIDGE else "rate"
        return f"{self.start.name}, {self.way}, {self.count} images, draw {self.draw}, {told} {self.lr:g}"


def main(argv: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(argv)
    out = pathlib.Path(args.out or f"runs/transfer-{args.data}")

    def locked() -> None:
        with lock.hold(out):
            files.remove_leftovers(out, ("transfer.png", "table.md"))
            run(args, out)

    return guard.guarded(locked, lambda: "Stopped. The same command goes on after the last finished training.")


def run(args: argparse.Namespace, out: pathlib.Path) -> None:
    plan = plan_of(args)
    first, *others = starts_of(args)
    sets = DATA[args.data](args)
    if (most := max(plan.counts)) > len(sets.train):
        raise ValueError(f"--count: {most:,} images are asked for, and {len(sets.train):,} are there to train on")
    name = sets.train.name.removesuffix(" train")
    print(f"{name}: {len(sets.train):,} images to draw from, {len(sets.validation):,} to choose the rate by, "
          f"{len(sets.test):,} to test on; everything goes into {out}")  # fmt: skip
    study = Study(sets, plan, out / "rows")
    todo = [(first, way, n) for n in plan.counts for way in RATES]
    todo += [(start, way, ALSO) for start in others for way in RATES if ALSO <= len(sets.train)]
    study.announce(todo)
    for draw in range(plan.draws):
        for start, way, n in todo:
            study.ask(start, way, n, draw)
        title = f"{first.name} on {name}, from few images: {draw + 1} draw{'s' * (draw > 0)} of each number"
        write(out, study.found, [first, *others], plan.counts, title)
    print(f"{(out / 'table.md').read_text()}now look at {out / 'transfer.png'}")


# ---- the trainings


class Study:
    """What was found, and what is still to be trained."""

    def __init__(self, sets: Sets, plan: Plan, folder: pathlib.Path) -> None:
        self.sets, self.plan, self.folder = sets, plan, folder
        self.found: list[Row] = []  # of the chosen rates
        self.rates: dict[tuple[Start, str, int], float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def ask(self, start: Start, way: str, n: int, draw: int) -> None:
        """The row of this draw with the rate of this way and number, which the first draw chooses."""
        if draw == 0:
            rows = [self.at_hand(Training(start, way, n, 0, lr)) for lr in RATES[way]]
            self.found.append(max(rows, key=lambda row: row["validation_auc"]))
            self.rates[start, way, n] = self.found[-1]["lr"]
        else:
            self.found.append(self.at_hand(Training(start, way, n, draw, self.rates[start, way, n])))

    def at_hand(self, asked: Training) -> Row:
        """What this training gave the last time that everything was the same, or gives now."""
        path, train_set = self.path(asked), drawn(self.sets.train, asked.count, asked.draw)
        same = self.digest(asked, train_set)
        if path.exists() and (row := read(path)).get("of") == same:
            return row
        row = asked._asdict() | {"start": asked.start.name, "of": same} | train(asked, train_set, self.sets, self.plan)
        files.remove_leftovers(self.folder, [path.name])
        files.write(path, json.dumps(row, indent=1))
        print(f"{asked}: AUC {row['test_auc']:.3f}, {row['seconds']:.0f} s", flush=True)
        return row

    def path(self, asked: Training) -> pathlib.Path:
        return self.folder / f"{str(asked).replace(', ', '-').replace(' ', '_')}.json"

    def digest(self, asked: Training, train_set: Dataset) -> str:
        """Of all that the row depends on, but for the code."""
        sets = [train_set, self.sets.test, *([self.sets.validation] if asked.draw == 0 else [])]
        told = repr((asked, steps_of(self.plan, asked.count), self.plan.batch_size)).encode()
        if asked.way != SCRATCH:
            told += pathlib.Path(asked.start.weights).read_bytes()
        return hashlib.sha256(b"".join([told, *(a.tobytes() for s in sets for a in (s.images, s.labels))])).hexdigest()

    def announce(self, todo: Sequence[tuple[Start, str, int]]) -> None:
        """How many trainings there are, and how long they will take, by a step and a batch of answers that are measured."""
        draws = self.plan.draws
        total = sum(draws - 1 + len(RATES[way]) for _, way, _ in todo)
        done = len(list(self.folder.glob("*.json")))
        seconds = 0.0
        for start in {start for start, _, _ in todo}:
            step, frozen, image = costs(start, self.sets, self.plan)
            for _, way, n in (asked for asked in todo if asked[0] == start):
                learning = image * n if way == RIDGE else (frozen if way == FROZEN else step) * steps_of(self.plan, n)
                each = learning + image * len(self.sets.test)
                seconds += (draws - 1 + len(RATES[way])) * each + len(RATES[way]) * image * len(self.sets.validation)
        print(f"{total} trainings, {min(done, total)} of them done before; all of them take about "
              f"{max(1, round(seconds / 60))} min", flush=True)  # fmt: skip


def read(path: pathlib.Path) -> Row:
    """A row, or an empty one where the file is damaged: it is trained again."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def steps_of(plan: Plan, n: int) -> int:
    """More of them for more images, as the third root: 100, from 200 images on more, 171 for 1,000, 292 for 5,000."""
    return round(plan.steps * max(1.0, (n / 200) ** (1 / 3)))


def drawn(dataset: Dataset, n: int, draw: int) -> Dataset:
    """n images: the first ones of each class in an order of the groups that the draw makes, in the proportion of the whole.

    The same draw's smaller sets are parts of its larger ones.
    """
    groups = np.arange(len(dataset)) if dataset.groups is None else np.unique(dataset.groups, return_inverse=True)[1]
    place = np.random.default_rng(draw).permutation(groups.max() + 1)
    order = np.argsort(place[groups], kind="stable")
    ones = order[dataset.labels[order] == 1]
    zeros = order[dataset.labels[order] == 0]
    k = min(max(1, round(n * len(ones) / len(dataset)), n - len(zeros)), n - 1, len(ones))
    return dataset.take(np.concatenate([ones[:k], zeros[: n - k]]))


def train(asked: Training, train_set: Dataset, sets: Sets, plan: Plan) -> Row:
    """What one training gives; the AUC of the validation, too, in the first draw, which chooses the rate."""
    begun = time.perf_counter()
    model, settings = net_of(asked, train_set, plan.batch_size)
    normalize = Normalize(*train_set.mean_std())
    found: Row = {}
    if asked.way == RIDGE:
        scores = ridge(model, train_set, normalize, asked.lr)
    else:
        found |= {"steps": steps_of(plan, asked.count)}
        found |= {"train_loss": learn(model, train_set, normalize, settings, found["steps"])}
        scores = partial(margins, model, normalize)
    if asked.draw == 0:
        found["validation_auc"] = metrics.auc(scores(sets.validation.images), sets.validation.labels)
    found["test_auc"] = metrics.auc(scores(sets.test.images), sets.test.labels)
    return found | {"seconds": time.perf_counter() - begun}


def learn(model: Module, train_set: Dataset, normalize: Normalize, settings: Settings, steps: int) -> float:
    """The loss, a mean over all steps.

    As `minidl.train.fit`, but without the files of a run, which would take longer than the steps. All steps are one epoch of
    images that come again and again.
    """
    flips = [RandomFlip(axis=axis) for axis in ("horizontal", "vertical")]
    augment = Compose([RandomCrop(settings.crop, fill=normalize.mean), *flips, normalize])
    again = np.resize(np.arange(len(train_set)), steps * settings.batch_size)
    loader = Loader(train_set.take(again), settings.batch_size, augment=augment, seed=settings.seed)
    optimizer = SGD(parameter_groups(model, settings), settings.lr, 0.9, nesterov=True)
    row = train_epoch(model, loader, optimizer, one_cycle(settings.lr, steps, settings.warmup), 0, settings)
    return float(row["train_loss"])


def ridge(model: Module, train_set: Dataset, normalize: Normalize, decay: float) -> Scores:
    """w = (Z^T Z / N + decay I)^-1 Z^T (y - mean y) / N, with Z (N,F) the features of N images, each of mean 0 and spread 1.

    Returns f(images) -> z w (N,). Hoerl and Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems".
    """
    z, y = features(model, normalize(train_set.images)), train_set.labels
    mean, std = z.mean(0), np.maximum(z.std(0), 1e-6)  # of a channel that never lights up it is 0
    z = (z - mean) / std
    N, F = z.shape
    w = np.linalg.solve(z.T @ z / N + decay * np.eye(F), z.T @ (y - y.mean()) / N)
    return lambda images: (features(model, normalize(images)) - mean) / std @ w


def features(model: Module, x: Array, batch_size: int = 64) -> Array:
    """The mean and the spread over the image of each channel that a stage puts out, one stage behind the other: (N,F) float64

    A stage is one of the net's own children that has layers of its own.
    """
    stages, outputs, parts = [name for name, layer in model.named_children() if any(layer.named_children())], {}, []

    def keep(name: str, y: Tensor) -> None:
        if name in stages and y.ndim == 4:
            outputs[name] = y.data.astype(np.float64)  # (n,C,h,w)

    for i in range(0, len(x), batch_size):
        with model.evaluating(), no_grad(), watch(model, after=keep):
            model(Tensor(x[i : i + batch_size]))
        parts.append(np.concatenate([f(a, axis=(2, 3)) for a in outputs.values() for f in (np.mean, np.std)], 1))
    return np.concatenate(parts)


def net_of(asked: Training, train_set: Dataset, batch_size: int) -> tuple[Module, Settings]:
    """The net as it begins, and how it is trained."""
    model = training.make(asked.start.model, len(train_set.classes), train_set.images.shape[1], asked.draw)
    if asked.way != SCRATCH:
        start_from(model, asked.start.weights, asked.start.key, asked.start.prefix)
    answer = {name.split(".")[0] for name in heads(model)}
    body = tuple(name for name, _ in model.named_children() if name not in answer)
    freeze, body_lr = body if asked.way == FROZEN else (), 0.1 if asked.way == SLOW else 1.0
    return model, Settings(1, batch_size, asked.lr, seed=asked.draw, freeze=freeze, body_lr=body_lr)


def margins(model: Module, normalize: Normalize, images: Array) -> Array:
    """By how much the second class's logit is above that of the first, (N,)"""
    logits = inference.predict(model, normalize(images), 64)
    return logits[:, 1] - logits[:, 0]


def costs(start: Start, sets: Sets, plan: Plan) -> tuple[float, float, float]:
    """Seconds of a step, of one in which only the head learns, and of the answer to one image."""
    few = sets.train.take(np.resize(np.arange(len(sets.train)), plan.batch_size))
    normalize = Normalize(*sets.train.mean_std())
    loader = Loader(few, plan.batch_size, augment=normalize)

    def step(way: str) -> tuple[Module, float]:
        model, settings = net_of(Training(start, way, len(few), 0, 1e-3), few, plan.batch_size)
        optimizer = SGD(parameter_groups(model, settings), 1e-3)
        return model, seconds(lambda: train_epoch(model, loader, optimizer, constant(1e-3), 0, settings))

    model, of_all = step(TUNED)
    return of_all, step(FROZEN)[1], seconds(lambda: margins(model, normalize, few.images)) / len(few)


def seconds(f: Callable[[], object]) -> float:
    """The median of five times, after one that compiles"""
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        f()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


# ---- what is written


def write(out: pathlib.Path, found: Sequence[Row], starts: Sequence[Start], counts: Sequence[int], title: str) -> None:
    """The table and the chart, of the draws that there are."""
    aucs: dict[tuple[str, str, int], list[float]] = {}
    for row in found:
        aucs.setdefault((row["start"], row["way"], row["count"]), []).append(row["test_auc"])
    lines = []
    for i, start in enumerate(starts):
        for n in counts if i == 0 else (ALSO,):
            if all((start.name, way, n) in aucs for way in RATES):
                lines.append([f"{start.name}, {n:,} images", *(told(aucs[start.name, way, n]) for way in RATES)])
    files.write(out / "table.md", compare.table(["net", *RATES], lines))
    draw(out / "transfer.png", {(way, n): of for (name, way, n), of in aucs.items() if name == starts[0].name}, title)


def told(aucs: Sequence[float]) -> str:
    """The mean, from the lowest to the highest"""
    return f"{statistics.mean(aucs):.3f} ({min(aucs):.3f} to {max(aucs):.3f})"


def draw(path: pathlib.Path, aucs: dict[tuple[str, int], list[float]], title: str) -> None:
    from matplotlib.ticker import NullLocator

    fig = figure.new(7.4, 4.4, w_pad=0.1, h_pad=0.08)
    ax = fig.subplots()
    for i, way in enumerate(RATES):
        counts = [n for of, n in aucs if of == way]
        x = np.array(counts) * 1.03 ** (i - 2)  # beside each other
        mean = np.array([statistics.mean(aucs[way, n]) for n in counts])
        down, up = ([abs(f(aucs[way, n]) - m) for n, m in zip(counts, mean, strict=True)] for f in (min, max))
        ax.errorbar(x, mean, [down, up], fmt="o-", ms=4, lw=1.6, elinewidth=1.2, capsize=2.5, color=COLOURS[way], label=way)
    ax.set_xscale("log")
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("images to learn from", color=GREY)
    ax.set_title("AUC on the test; mean, lowest and highest of the draws", fontsize=10, loc="left")
    ax.grid(color="#e6e6e6", lw=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=9)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))  # where no bar is
    figure.title(fig, title)
    figure.save(fig, path)


# ---- what is asked for


def ham10000(args: argparse.Namespace) -> Sets:
    size = arguments.pair(args.size, "--size")
    whole = data.ham10000(args.root, size=size)
    return Sets(*whole.split((0.8, 0.2)), data.ham10000(args.root, train=False, size=size))


def medmnist(args: argparse.Namespace) -> Sets:
    sets = Sets(*(data.medmnist(args.root, split) for split in ("train", "validation", "test")))
    if sets.train.heads or len(sets.train.classes) != 2:
        raise ValueError(f"--root: expected a set of two classes, such as pneumoniamnist.npz, got {sets.train!r}")
    return sets


DATA: dict[str, Callable[[argparse.Namespace], Sets]] = {"ham10000": ham10000, "medmnist": medmnist}


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan, with what was asked for in its place. Raises ValueError for what cannot be."""
    asked = {name: getattr(args, name) for name in ("draws", "steps", "batch_size") if getattr(args, name) is not None}
    if args.count:
        asked["counts"] = tuple(sorted(set(args.count)))
    plan = replace(QUICK if args.quick else Plan(), **asked)
    arguments.counts(plan.counts, "count", 2, None)
    for name in ("draws", "steps", "batch_size"):
        arguments.count(getattr(plan, name), name)
    return plan


def starts_of(args: argparse.Namespace) -> list[Start]:
    """The net of --weights, those of --also, which are laid out as it is, and that of --own."""
    starts = [Start(args.model, args.model, args.weights, args.key, args.prefix)]
    for model, weights in args.also:
        one_of(model, "--also", training.MODELS)
        starts.append(Start(model, model, weights, args.key, args.prefix))
    if args.own:
        contract = load_run(args.own, training.MODELS).contract
        starts.append(Start(f"own {contract.architecture}", contract.architecture, str(pathlib.Path(args.own, WEIGHTS))))
    if len({start.name for start in starts}) < len(starts):
        raise ValueError(f"--also: expected nets other than {args.model}, each once")
    return starts


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", choices=DATA, default="ham10000")
    p.add_argument("--root", required=True, help="the folder that holds HAM10000, or the .npz file of MedMNIST")
    p.add_argument("--size", type=training.size, default=32, metavar="HxW",
                   help="of the images of HAM10000, 48 is 48x48; by default 32")  # fmt: skip
    p.add_argument("--model", choices=training.MODELS, default="resnet20", metavar="NAME", help="the net; by default resnet20")
    p.add_argument("--weights", required=True, metavar="FILE", help="its published weights")
    p.add_argument("--key", help="the entry of a PyTorch checkpoint that holds them, where there are several")
    p.add_argument("--prefix", default="", help="what their names begin with there, such as module.")
    p.add_argument("--also", nargs=2, action="append", default=[], metavar=("NAME", "FILE"),
                   help=f"another net and its weights, with the same --key and --prefix, at {ALSO} images")  # fmt: skip
    p.add_argument("--own", metavar="RUN", help=f"the folder of a training by examples/train.py, at {ALSO} images")
    p.add_argument("--count", type=int, nargs="+", metavar="N", help="of images; by default 50 100 200 1000 5000")
    p.add_argument("--draws", type=int, help="of each number of images; by default 5")
    p.add_argument("--steps", type=int, help="of a training on up to 200 images; by default 100")
    p.add_argument("--batch-size", type=int, help="by default 16")
    p.add_argument("--quick", action="store_true", help="few images and steps, to see whether it runs")
    p.add_argument("--out", help="the folder of this study; by default runs/transfer-DATA")
    return p


if __name__ == "__main__":
    guard.script(main)
