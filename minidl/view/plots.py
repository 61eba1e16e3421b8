"""Learning curves and the confusion matrix of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.arguments import mapping
from minidl.array import Array, shape_of
from minidl.io.files import Path
from minidl.view import figure
from minidl.view.display import rows_of
from minidl.view.figure import BLUE, GREY, ORANGE, Drawing, Sheet
from minidl.view.fit import LINE, fitted, width, wrapped
from minidl.view.shares import share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = ("epoch", "lr", "train_loss", "train_accuracy")  # what each epoch has
NAMED = 25  # up to so many classes have their names and counts written into the matrix
LONGEST, SIZE = 2.4, 9  # of the names of classes: inches at most, points


def curves(path: Path | None, rows: Sequence[Mapping[str, Any]], title: str = "") -> Drawing:
    """Loss, accuracy and learning rate by epoch. `rows` as in metrics.jsonl, one a finished epoch, validated or not.

    A line tells what the largest class gets for every answer, of the validation images or else of the training images. What is
    NaN or infinite, as the loss of a training that went astray, is left out and named. The path's ending says which kind of
    file: .png, .svg, .pdf, .jpg or .jpeg; None is for no file, see `view.Drawing`. Raises TypeError or ValueError where
    there is no row, for what is none, and for another ending.
    """
    from matplotlib.ticker import MaxNLocator

    if not rows:
        raise ValueError("rows: no epoch to draw")
    for i, row in enumerate(rows):
        if lacking := [name for name in ROW if name not in mapping(row, f"rows[{i}]", "a line of metrics.jsonl")]:
            raise ValueError(f"rows[{i}]: expected a line of metrics.jsonl, got none of its {', '.join(lacking)}")
    fig = figure.new(11, 3.4, w_pad=0.12, h_pad=0.08)
    loss, accuracy, lr = fig.subplots(1, 3, width_ratios=(4, 4, 2))
    epochs = [row["epoch"] for row in rows]

    validated = all("validation_loss" in row for row in rows)
    sets = ("train", "validation") if validated else ("train",)

    def of(key: str) -> list[float]:
        return [row[f"{name}_{key}"] for name in sets for row in rows if math.isfinite(row[f"{name}_{key}"])]

    def line(ax: Axes, key: str, name: str, color: str, scale: float = 1, **style: Any) -> None:
        values = np.array([scale * row[key] for row in rows], float)
        lost = int((~np.isfinite(values)).sum())
        label = f"{name}{', ' if name else ''}NaN in {lost} of {len(rows)} epochs" if lost else name
        ax.plot(epochs, np.where(np.isfinite(values), values, np.nan), "o-", ms=3, lw=1.6, color=color, label=label, **style)

    line(loss, "train_loss", "training", ORANGE)
    if validated:
        line(loss, "validation_loss", "validation", BLUE)
    loss.set_ylim(0, 1.08 * max(of("loss"), default=1) or 1)
    line(accuracy, "train_accuracy", "training", ORANGE, 100)
    if validated:
        line(accuracy, "validation_accuracy", f"validation, {share(rows[-1]['validation_accuracy'])} at the end", BLUE, 100)
    majority = rows[-1][f"{sets[-1]}_majority_accuracy"]
    ends = np.linspace(min(epochs) - 0.5, max(epochs) + 0.5, 50)  # points that the legend keeps clear of
    label = f"largest class alone, {share(majority)}"
    accuracy.plot(ends, np.full(50, 100 * majority), "--", color=GREY, lw=1.2, label=label)
    accuracy.set_ylim(100 * min([*of("accuracy"), majority]) - 5, 101)
    line(lr, "lr", "", GREY)
    lr.set_ylim(0, 1.08 * max((row["lr"] for row in rows if math.isfinite(row["lr"])), default=1) or 1)
    for ax, name in (loss, "loss (cross-entropy)"), (accuracy, "accuracy (%)"), (lr, "learning rate"):
        ax.set_title(name, fontsize=10, loc="left")
        ax.set_xlabel("epoch", color=GREY)
        ax.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(color="#e6e6e6", lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=GREY, labelsize=9)
    for ax in loss, accuracy:
        ax.legend(frameon=False, fontsize=9)
    figure.title(fig, title)
    return figure.save(fig, path)


def confusion(path: Path | None, matrix: Array, classes: Sequence[str], title: str = "") -> Drawing:
    """The confusion matrix (K,K): the shade is the share of the row, which is a true class; the numbers are counts.

    Long names are shortened, and those that differ stay different. The path's ending says which kind of file: .png, .svg,
    .pdf, .jpg or .jpeg; None is for no file, see `view.Drawing`. Raises ValueError where the matrix is not K by K for K classes
    or holds what is no count, TypeError where it holds no numbers.
    """
    K = len(classes)
    if shape_of(matrix) != (K, K):
        raise ValueError(f"matrix: expected ({K}, {K}) for {K} classes, got {shape_of(matrix)}")
    matrix = rows_of(matrix, "matrix", (K, K))
    if not K or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise ValueError("matrix: expected counts of at least one class, got " + ("negative ones or NaN" if K else "none"))
    of_row = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (K,K), rows sum to 1, or to 0 for an absent class
    counts = [[f"{n:,}" for n in row] for row in matrix.tolist()] if K <= NAMED else []
    cell = max([0.55, 1.65 / K, *(width(n, SIZE) + 0.12 for row in counts for n in row)]) if counts else 9 / K  # inches
    names = fitted(figure.names(classes), LONGEST, SIZE) if counts else []
    longest = max((width(name, SIZE) for name in names), default=0.0)
    upright = longest > cell - 0.1  # names along the lower edge
    side, left = K * cell, figure.MARGIN + 0.3 + longest + 0.1
    below = side + 0.05 + (longest if upright else SIZE * LINE * bool(names)) + 0.05
    sheet = Sheet(left + side + 1.3, below + 0.25, title)
    shades = sheet.cell(left, 0, side, side).imshow(of_row, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    for k, name in enumerate(names):
        middle = (k + 0.5) * cell
        sheet.write(left - 0.07, middle, name, SIZE, ha="right", va="center")
        sheet.write(left + middle, side + 0.07, name, SIZE, ha="center", va="top", rotation=90 if upright else 0)
        for p, count in enumerate(counts[k]):
            color = "white" if of_row[k, p] > 0.6 else "black"
            sheet.write(left + (p + 0.5) * cell, middle, count, SIZE, ha="center", va="center", color=color)
    sheet.write(left + side / 2, below, "predicted class", 10, ha="center", va="top", color=GREY)
    sheet.write(figure.MARGIN + 0.12, side / 2, "true class", 10, ha="center", va="center", rotation=90, color=GREY)
    length = min(0.85 * side, 5.0)
    cax = sheet.figure.add_axes(sheet.box(left + side + 0.25, (side - length) / 2, 0.15, length))
    bar = sheet.figure.colorbar(shades, cax=cax, ticks=(0, 0.5, 1), format="{x:.0%}")
    bar.ax.tick_params(labelsize=SIZE, labelcolor=GREY, length=0)
    bar.outline.set_visible(False)
    what = wrapped("share of the true class", length, SIZE)
    sheet.write(left + side + 1.1, side / 2, what, SIZE, ha="center", va="center", rotation=90, color=GREY)
    return sheet.save(path)
