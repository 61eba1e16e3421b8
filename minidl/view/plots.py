"""Learning curves and the confusion matrix of a training run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.array import Array, to_cpu
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 25  # up to so many classes have their names and counts written into the matrix


def curves(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Loss, accuracy and learning rate by epoch, as PNG. `rows` as in metrics.jsonl, one a finished epoch.

    Raises ValueError where there is no row.
    """
    from matplotlib.ticker import MaxNLocator

    if not rows:
        raise ValueError("rows: no epoch to draw")
    fig = figure.new(11, 3.4, w_pad=0.12, h_pad=0.08)
    loss, accuracy, lr = fig.subplots(1, 3, width_ratios=(4, 4, 2))
    epochs = [row["epoch"] for row in rows]

    def line(ax: Axes, key: str, name: str, color: str, scale: float = 1, **style: Any) -> None:
        ax.plot(epochs, [scale * row[key] for row in rows], "o-", ms=3, lw=1.6, color=color, label=name, **style)

    line(loss, "train_loss", "training", ORANGE)
    line(loss, "test_loss", "test", BLUE)
    loss.set_ylim(0, 1.08 * max(max(row["train_loss"], row["test_loss"]) for row in rows) or 1)
    line(accuracy, "train_accuracy", "training", ORANGE, 100)
    line(accuracy, "test_accuracy", f"test, {rows[-1]['test_accuracy']:.1%} at the end", BLUE, 100)
    accuracy.set_ylim(100 * min(min(row["test_accuracy"], row["train_accuracy"]) for row in rows) - 5, 101)
    line(lr, "lr", "", GREY)
    lr.set_ylim(0, 1.08 * max(row["lr"] for row in rows) or 1)
    for ax, name in (loss, "loss (cross-entropy)"), (accuracy, "accuracy (%)"), (lr, "learning rate"):
        ax.set_title(name, fontsize=10, loc="left")
        ax.set_xlabel("epoch", color=GREY)
        ax.set_xlim(0.5, len(rows) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(color="#e6e6e6", lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=GREY, labelsize=9)
    for ax in loss, accuracy:
        ax.legend(frameon=False, fontsize=9)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


def confusion(path: str | os.PathLike[str], matrix: Array, classes: Sequence[str], title: str = "") -> None:
    """The confusion matrix (K,K) as PNG: the shade is the share of the row, which is a true class; the numbers are counts.

    Raises ValueError where the matrix is not K by K for K classes.
    """
    K = len(classes)
    if matrix.shape != (K, K):
        raise ValueError(f"matrix: expected ({K}, {K}) for {K} classes, got {matrix.shape}")
    matrix = to_cpu(matrix)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (K,K), rows sum to 1, or to 0 for an absent class
    names = [figure.name(c, 24) for c in classes] if K <= NAMED else []
    longest = max(map(len, names), default=0)
    side = 2.2 + 0.55 * K if K <= NAMED else 9
    more = 0.075 * max(0, longest - 10)  # inches for long names
    fig = figure.new(side + 1.2 + more, side + 0.7 * more, w_pad=0.1, h_pad=0.1)
    ax = fig.subplots()
    shades = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if K <= NAMED:
        slanted = K > 3 or longest > 10
        ax.set_xticks(
            range(K), names, rotation=45 if slanted else 0, ha="right" if slanted else "center", rotation_mode="anchor"
        )
        ax.set_yticks(range(K), names)
        for t, p in np.ndindex(K, K):
            color = "white" if share[t, p] > 0.6 else "black"
            ax.text(p, t, f"{matrix[t, p]:,}", ha="center", va="center", fontsize=9, color=color)
    ax.tick_params(length=0, labelsize=9)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted class", color=GREY)
    ax.set_ylabel("true class", color=GREY)
    bar = fig.colorbar(shades, ax=ax, shrink=0.8, ticks=(0, 0.5, 1), format="{x:.0%}")
    bar.set_label("share of the true class", color=GREY)
    bar.outline.set_visible(False)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)
