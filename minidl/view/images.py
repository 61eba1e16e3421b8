"""Images beside the maps that explain what a model made of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from minidl.array import Array, to_cpu
from minidl.view import figure
from minidl.view.figure import GREY, RED


def gradient_images(
    path: str | os.PathLike[str],
    images: Array,
    maps: Array,
    labels: Array,
    probabilities: Array,
    classes: Sequence[str],
    title: str = "",
) -> None:
    """The images (N,C,H,W), each with its prediction and whether that is right, beside its gradient map (N,H,W), as PNG.

    All maps share one scale, symmetric about 0: red is above, blue below, white is 0, and the deepest red and blue stand for
    the largest 0.5% of all sizes. labels (N,), probabilities (N,K).
    Raises ValueError where the lengths disagree or there is no image.
    """
    if not 0 < len(images) == len(maps) == len(labels) == len(probabilities):
        lengths = len(images), len(maps), len(labels), len(probabilities)
        raise ValueError(f"images, maps, labels, probabilities: expected as many of each and at least one, got {lengths}")
    images, maps, labels, probabilities = map(to_cpu, (images, maps, labels, probabilities))
    N, columns = len(images), min(len(images), 4)
    lines = -(-N // columns)
    limit = limit_of(maps)
    fig = figure.new(3.3 * columns + 1.0, 1.95 * lines + 0.55, w_pad=0.06, h_pad=0.05, wspace=0, hspace=0)
    cells = fig.subplots(lines, 3 * columns, width_ratios=(1, 1, 0.12) * columns, squeeze=False)
    for ax in cells.flat:
        ax.set_axis_off()
    for n, (left, right, _) in enumerate(cells.reshape(-1, 3)[:N]):
        left.imshow(for_the_eye(images[n]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        shades = right.imshow(maps[n], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        guess, label = int(probabilities[n].argmax()), labels[n]
        verdict, color = ("right", GREY) if guess == label else (f"wrong: it is {figure.name(classes[label], 12)}", RED)
        p = probabilities[n, guess]
        left.set_title(
            f"{figure.name(classes[guess], 24)}, {'>99.9%' if p > 0.999 else f'{p:.1%}'}\n", fontsize=9.5, loc="left", pad=4
        )
        left.text(0, 1.035, verdict, fontsize=9.5, color=color, transform=left.transAxes)
        right.set_title("∂ logit / ∂ image", fontsize=8, color=GREY, loc="right", pad=4)
    bar = fig.colorbar(shades, ax=cells, shrink=0.85, aspect=30, extend="both")
    bar.set_label("change of the logit\nper unit of brightness", color=GREY)
    bar.outline.set_visible(False)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


def for_the_eye(image: Array) -> Array:
    """(C,H,W) uint8 or in [0, 1] -> (H,W) grey or (H,W,3) red, green, blue in [0, 1]; further channels are left out."""
    x = image / 255 if image.dtype == np.uint8 else np.clip(image, 0, 1)
    return x[0] if len(x) < 3 else x[:3].transpose(1, 2, 0)


def limit_of(maps: Array) -> float:
    """The end of a scale for all of them; a few bright pixels must not darken all others."""
    size = np.abs(maps)
    return float(np.quantile(size, 0.995)) or float(size.max()) or 1.0
