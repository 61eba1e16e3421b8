"""Maps of what decided, beside the images and on top of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.array import Array, is_array, to_cpu
from minidl.view import figure
from minidl.view.figure import GREY
from minidl.view.images import for_the_eye, limit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage


def overlays(
    path: str | os.PathLike[str],
    images: Array,
    maps: Array,
    captions: Sequence[str] | None = None,
    title: str = "",
    unit: str = "",
) -> None:
    """Images (N,C,H,W), beside each its map (N,H,W) alone and over the image in grey, as PNG.

    All maps share one scale. Where one of them is negative anywhere, it is symmetric about 0, blue below and red above; else
    it goes from 0. The deepest colour stands for the largest 0.5% of all sizes. The smaller a value, the more of the
    image shows through. images: uint8 or in [0, 1], not normalised; of more than three channels the first three are shown.

    captions: a line or two for each image. title: of the figure. unit: what the colours mean, beside the colour bar.
    A map that is 0 everywhere gets a warning, and no colour. Raises ValueError where the shapes do not go together,
    a map holds NaN or infinity, or images are beyond [0, 1], TypeError for what are no arrays.
    """
    images, (maps,) = _checked(images, {"maps": maps})
    N, columns = len(images), 2 if len(images) > 3 else 1
    lines = -(-N // columns)
    H, W = maps.shape[1:]
    side = 1.75
    wide, high = side * min(2.5, max(0.4, W / H)), side
    fig = figure.new(columns * (3 * wide + 0.55) + 1.1, lines * (high + 0.5) + 0.45, w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    cells = fig.subplots(lines, 4 * columns, width_ratios=(1, 1, 1, 0.15) * columns, squeeze=False)
    for ax in cells.flat:
        ax.set_axis_off()
    colors = color_scale(maps)
    for n, (plain, alone, over, _) in enumerate(cells.reshape(-1, 4)[:N]):
        draw(plain, images[n])
        shades = draw(alone, None, maps[n], colors)
        draw(over, images[n], maps[n], colors)
        if captions is not None:
            plain.set_title(captions[n], fontsize=9, loc="left", pad=4)
    _bar(fig, shades, cells, unit)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


def comparison(
    path: str | os.PathLike[str],
    images: Array,
    maps: Mapping[str, Array],
    captions: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """images (N,C,H,W) down, and across, for each name in `maps`, its maps (N,H,W) over the images in grey, as PNG.

    Every column has a scale of its own, the same for all images, because the methods speak of different things; its colour
    bar stands below. Signs, colours, captions, title, warnings and what is raised are as in `overlays`.
    """
    images, arrays = _checked(images, maps)
    N, (H, W) = len(images), images.shape[2:]
    wide, high = 1.35 * min(2.5, max(0.5, W / H)), 1.35
    fig = figure.new((len(maps) + 1) * wide + 0.2, N * (high + 0.3) + 0.9, w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    cells = fig.subplots(N + 1, len(maps) + 1, squeeze=False, height_ratios=[1] * N + [0.07])  # the last for colour bars
    for ax in (*cells[:N].flat, cells[N, 0]):
        ax.set_axis_off()
    for n, (image, ax) in enumerate(zip(images, cells[:N, 0], strict=True)):
        draw(ax, image)
        if captions is not None:
            ax.set_title(captions[n], fontsize=8.5, loc="left", pad=3)
    for name, values, column in zip(maps, arrays, cells.T[1:], strict=True):
        colors = color_scale(values)
        for image, one, ax in zip(images, values, column[:N], strict=True):
            shades = draw(ax, image, one, colors)
        column[0].text(0.5, 1.05, name, fontsize=9.5, ha="center", va="bottom", transform=column[0].transAxes)
        least, most = shades.get_clim()
        ticks = sorted({least, 0, most})
        bar = fig.colorbar(shades, cax=column[N], orientation="horizontal", ticks=ticks)
        labels = bar.ax.set_xticklabels([f"{tick:.2g}" for tick in ticks], fontsize=8, color=GREY)
        labels[0].set_horizontalalignment("left")  # or those of the next bar would touch it
        labels[-1].set_horizontalalignment("right")
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


def _checked(images: Array, maps: Mapping[str, Array]) -> tuple[Array, list[Array]]:
    """All on the CPU, and of shapes that go together."""
    for name, a in {"images": images, **maps}.items():
        if not is_array(a):
            raise TypeError(f"{name}: expected an array, got {type(a).__name__}")
    images, arrays = to_cpu(images), [to_cpu(a) for a in maps.values()]
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images: expected (N,C,H,W), none of these 0, got shape {images.shape}")
    if images.dtype != np.uint8 and not (images.min() >= -1e-6 and images.max() <= 1 + 1e-6):
        low, high = images.min(), images.max()
        raise ValueError(f"images: expected uint8 or [0, 1], as they were before normalising, got {low:.3g} to {high:.3g}")
    if not arrays:
        raise ValueError("maps: there is none")
    N, _, H, W = images.shape
    for name, a in zip(maps, arrays, strict=True):
        if a.shape != (N, H, W):
            raise ValueError(f"{name}: expected a map for each image, shape {(N, H, W)}, got {a.shape}")
        if not np.isfinite(a).all():
            raise ValueError(f"{name}: holds NaN or infinity")
        blank = np.flatnonzero(~a.any((1, 2))).tolist()
        if blank:
            warnings.warn(f"{name}: 0 everywhere for images {blank}, which are drawn without colour", stacklevel=3)
    return images, arrays


def color_scale(maps: Array) -> dict[str, Any]:
    """The scale of some maps, for `imshow`: colours that are the more opaque the larger a value."""
    limit = limit_of(maps)
    if maps.min() < 0:
        return {"cmap": _fading("RdBu_r", signed=True), "vmin": -limit, "vmax": limit}
    return {"cmap": _fading("YlOrRd", signed=False), "vmin": 0, "vmax": limit}


def _fading(name: str, signed: bool) -> Colormap:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    t = np.linspace(-1 if signed else 0, 1, 256)
    colors = colormaps[name](np.linspace(0, 1, 256))
    colors[:, 3] = np.clip(1.6 * np.abs(t), 0, 0.92)
    return ListedColormap(colors)


def draw(ax: Axes, image: Array | None, values: Array | None = None, colors: Mapping[str, Any] | None = None) -> AxesImage:
    """An image, a map, or a map over the image in pale grey. Returns what was drawn last."""
    if image is not None:
        pixels = for_the_eye(image)
        if values is not None:
            grey = pixels if pixels.ndim == 2 else pixels @ (0.299, 0.587, 0.114)
            pixels = 0.35 + 0.65 * grey
        shown = ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if values is not None and colors is not None:
        shown = ax.imshow(values, interpolation="nearest", **colors)
    return shown


def _bar(fig: Any, shades: AxesImage, cells: Array, unit: str) -> None:
    bar = fig.colorbar(shades, ax=cells, shrink=0.85, aspect=30, extend="both" if shades.get_clim()[0] < 0 else "max")
    bar.set_label(unit, color=GREY)
    bar.outline.set_visible(False)
