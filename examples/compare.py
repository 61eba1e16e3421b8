"""What the comparisons of nets share: each net is trained on the same images, in a folder of its own.

A comparison that was interrupted is started again with the same command: nets that are done are not trained again, and the
one that was interrupted goes on after its last finished epoch, to the same numbers.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import guard
from common import add_device  # the lessons beside this file
from train import load

from minidl.array import check_device
from minidl.data import Dataset
from minidl.io.files import remove_leftovers
from minidl.io.lock import hold
from minidl.nn import Module
from minidl.train import Row, Settings, fit

Maker = Callable[[int, int, int], Module]  # (classes, channels of an image, seed) -> a net with drawn weights
RESULTS = ("table.md", "figure.png")
Recipes = Mapping[str, Mapping[str, Any]]  # data -> where it wants other settings than the defaults of `Settings`


def parser(doc: str | None, recipes: Recipes) -> argparse.ArgumentParser:
    """The arguments that all comparisons take."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", choices=recipes, default="lesions", help=f"one of {', '.join(recipes)}; by default lesions")
    p.add_argument("--root", help="the folder that holds the data; by default data")
    p.add_argument("--images", type=int, help="take only the first IMAGES of the training and of the test set")
    p.add_argument("--epochs", type=int)
    p.add_argument("--batch-size", type=int)
    p.add_argument("--lr", type=float, help="the highest learning rate of the one-cycle schedule")
    p.add_argument("--seeds", type=int, nargs="+", default=[0], help="train each net once with each of these")
    add_device(p)
    p.add_argument("--out", type=pathlib.Path, help="the folder of this comparison; by default runs/NAME-DATA")
    return p


def settings(asked: argparse.Namespace, recipes: Recipes) -> Settings:
    """The recipe for these data with what was asked for in its place; on a GPU, each step as one CUDA graph.

    Raises RuntimeError where that is asked for and not there.
    """
    check_device(asked.device)
    names = {"images": "limit"} | {name: name for name in ("data", "root", "epochs", "batch_size", "lr", "device")}
    given = {to: getattr(asked, name) for name, to in names.items() if getattr(asked, name) is not None}
    return Settings(**{**recipes[asked.data], **given}, cuda_graph=asked.device == "gpu")


def train_all(
    nets: Mapping[str, Maker], settings: Settings, seeds: Sequence[int], out: pathlib.Path
) -> tuple[Dataset, dict[str, list[list[Row]]]]:
    """Train every net with every seed, in `out`/NAME-SEED; the training images, and for each net the rows of each seed.

    Nothing is chosen by the test images, whose scores stand in each row under "validation_": these are curves to look at.
    Raises ValueError, before it trains, where a folder holds a run with other settings; and what `minidl.train.fit` raises.
    """
    runs = [(name, replace(settings, model=name, seed=seed), out / f"{name}-{seed}") for name in nets for seed in seeds]
    begun = {folder for _, _, folder in runs if (folder / "settings.json").exists()}
    for _, asked, folder in runs:
        if folder in begun:
            try:
                asked.continues(Settings.of_run(folder))
            except ValueError as error:
                raise ValueError(f"{folder} holds a run already, and {error}; choose another folder with --out") from error
    train_set, test_set, _ = load(settings)
    K, C = len(train_set.classes), train_set.images.shape[1]
    print(f"{len(train_set):,} training and {len(test_set):,} test images of {settings.data}, {K} classes; {settings.epochs} "
          f"epochs, batches of {settings.batch_size}, learning rate {settings.lr:g}; everything goes into {out}")  # fmt: skip
    rows: dict[str, list[list[Row]]] = {name: [] for name in nets}
    for name, each, folder in runs:
        print(f"{name}, seed {each.seed}" + (", begun before" if folder in begun else ""))
        rows[name].append(fit(nets[name](K, C, each.seed), train_set, each, folder, test_set, folder in begun))
    return train_set, rows


def always(rows: Mapping[str, list[list[Row]]]) -> str:
    """What the errors of a table stand beside."""
    last = next(iter(rows.values()))[0][-1]
    return f"Always the largest class: a test error of {1 - last['validation_majority_accuracy']:.1%}.\n"


def count(model: Module) -> int:
    """Its parameters."""
    return sum(p.size for p in model.parameters())


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; the columns after the first are numbers, and stand to the right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    cells = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in (head, *lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells[0], rule, *cells[1:]))


def guarded(run: Callable[[], None], out: pathlib.Path) -> int:
    """The exit code of `run`, which has the folder `out` for itself; see `guard.guarded`."""

    def locked() -> None:
        with hold(out):
            remove_leftovers(out, RESULTS)
            run()

    return guard.guarded(locked, lambda: "Stopped. The same command goes on after the last finished epoch.")
