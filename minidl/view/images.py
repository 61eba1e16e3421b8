"""Images beside the maps that explain what a model made of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from minidl.arguments import one_of
from minidl.array import Array
from minidl.io.files import Path
from minidl.view import figure
from minidl.view.display import averaged, block, images_and_window, limit_of, of_both_answers, rows_of, values_of
from minidl.view.figure import GREY, RED, Drawing, Sheet
from minidl.view.fit import LINE, fitted, fitted_one, height, width, wrapped
from minidl.view.maps import GAP, NOTE, SCALES, draw, note_of, upright_bar
from minidl.view.shares import probability

SIZE, SIDE = 9.5, 1.5  # of the letters in points, of an image in inches


def gradient_images(
    path: Path | None,
    images: Array,
    maps: Array,
    labels: Array,
    probabilities: Array,
    classes: Sequence[str],
    title: str = "",
    window: tuple[float, float] | None = None,
    scale: str = "shared",
) -> Drawing:
    """The images (N,C,H,W), each with its prediction and whether that is right, beside its gradient map (N,H,W).

    All maps share one scale, symmetric about 0: red is above, blue below, white is 0, and the deepest red and blue stand for
    the largest 0.5% of all sizes; with scale="image" each has its own. labels (N,), probabilities (N,K), K classes, or
    (N,1) of a sigmoid. window, NaN, averages and the kinds of files are as in `overlays`.
    Raises ValueError where the lengths disagree or there is no image, TypeError for what are no arrays of numbers.
    """
    lengths = len(images), len(maps), len(labels), len(probabilities)
    if len(set(lengths)) > 1 or 0 in lengths:
        raise ValueError(f"images, maps, labels, probabilities: expected as many of each and at least one, got {lengths}")
    images, window = images_and_window(images, window)
    probabilities, classes = of_both_answers(probabilities, classes)
    one_of(scale, "scale", SCALES)
    N, _, H, W = images.shape
    K = len(classes)
    maps = values_of(maps, "maps", (N, H, W)).astype(np.float64)
    probabilities = rows_of(probabilities, "probabilities", (N, K))
    labels = rows_of(labels, "labels", (N,))
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= K:
        raise ValueError(f"labels: expected integers from 0 to {K - 1} for {K} classes, got {labels.dtype} {labels.tolist()}")
    lost = np.flatnonzero(np.isnan(maps).any((1, 2))).tolist()
    if lost:
        warnings.warn(f"maps: NaN or infinity for images {lost}, which stay without colour there", stacklevel=2)

    columns = min(N, 4)
    lines = -(-N // columns)
    wide, high = SIDE * min(2.5, max(1, W / H)), SIDE
    pair = 2 * wide + GAP
    head = 2 * SIZE * LINE + 0.03
    across = 2 * figure.MARGIN + columns * pair + (columns - 1) * 0.2 + 1.25
    down = lines * (head + high + 0.1) - 0.1
    pixel = min(wide / W, high / H)
    dpi = figure.dots(across, down + 0.5, pixel)
    small = averaged(maps, block(1, pixel * dpi))
    limits = [limit_of(one) for one in small] if scale == "image" else [limit_of(small)] * N
    note = wrapped(note_of(images, window, scale, pixel * dpi, "all maps"), across - 2 * figure.MARGIN, NOTE)
    sheet = Sheet(across, down + 0.05 + height(note, NOTE), title, dpi)

    known = figure.names(classes)
    guesses = np.where(np.isnan(probabilities), -np.inf, probabilities).argmax(1)
    chances = [probability(p[g]) for p, g in zip(probabilities, guesses, strict=True)]
    room = pair - max(width(f", {chance}", SIZE) for chance in chances)
    guessed = fitted(known, room, SIZE)
    above = "∂ logit / ∂ image"
    known = fitted(known, pair - width("wrong: it is ", SIZE) - width(above, 8) - 0.1, SIZE)
    for n in range(N):
        x = figure.MARGIN + n % columns * (pair + 0.2)
        y = n // columns * (head + high + 0.1) + head
        draw(sheet.cell(x, y, wide, high), images[n], window=window)
        colors = {"cmap": "RdBu_r", "vmin": -limits[n], "vmax": limits[n]}
        shades = draw(sheet.cell(x + wide + GAP, y, wide, high), None, maps[n], colors)
        guess, label = int(guesses[n]), int(labels[n])
        verdict, color = ("right", GREY) if guess == label else (f"wrong: it is {known[label]}", RED)
        sheet.write(x, y - 0.03 - SIZE * LINE, f"{guessed[guess]}, {chances[n]}", SIZE)
        sheet.write(x, y - 0.03, verdict, SIZE, color=color)
        end = fitted_one(f"end {limits[n]:.2g}" if scale == "image" else above, wide, 8)
        sheet.write(x + pair, y - 0.03, end, 8, color=GREY, ha="right")
    unit = "change of the logit\nper unit of brightness"
    upright_bar(sheet, shades, across - figure.MARGIN - 1.1, head, down - head, unit, scale)
    sheet.write(figure.MARGIN, down + 0.05, note, NOTE, va="top", color=GREY)
    return sheet.save(path)
