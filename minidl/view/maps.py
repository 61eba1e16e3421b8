"""Maps of what decided, beside the images and on top of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.arguments import mapping, one_of
from minidl.array import Array
from minidl.io.files import Path
from minidl.view import figure
from minidl.view.display import Window, averaged, block, for_the_eye, images_and_window, limit_of, values_of
from minidl.view.figure import BLUE, GREY, Drawing, Sheet
from minidl.view.fit import LINE, fitted_lines, fitted_one, height, width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage

CAPTION, NOTE, TICK = 9.0, 7.5, 8.0  # sizes in points
SCALES = "shared", "image"
GAP = 0.06  # between neighbours, in inches
FRAYED = 20_000  # pieces of an outline that is drawn as lines


def overlays(
    path: Path | None,
    images: Array,
    maps: Array,
    captions: Sequence[str] | None = None,
    title: str = "",
    unit: str = "",
    window: tuple[float, float] | None = None,
    scale: str = "shared",
) -> Drawing:
    """Images (N,C,H,W), beside each its map (N,H,W) alone and over the image in grey.

    All maps share one scale. Where one of them is negative anywhere, it is symmetric about 0, blue below and red above; else
    it goes from 0. The deepest colour stands for the largest 0.5% of all sizes. With scale="image" every map has a scale of
    its own, whose end is written above it. The smaller a value, the more of the image shows through. Maps of bool are
    masks, of which the outline is drawn.

    The more pixels a map has, the more dots the figure has. Beyond 8 million dots the values are averaged, before they get
    their colours, and the figure says over how many pixels.

    images: integers, or floats in [0, 1], not normalised; of two channels the first is shown, of more than three the first
    three. window: the values (low, high) that are drawn black and white, by default the ends of the range: 0 and 255 of
    uint8, 0 and 65,535 of uint16, 0 and 1 of floats.
    captions: a line or two for each image. title: of the figure. unit: what the colours mean, beside the colour bar.
    What is too long for its place is shortened. path: ends in .png, .svg, .pdf, .jpg or .jpeg, and gets a
    file of that kind; None for no file. Returned is the `view.Drawing`, which a notebook shows.
    A map that is 0 everywhere gets a warning, and no colour; so does what is NaN or infinite in it, and the map says so.

    Raises ValueError where the shapes do not go together, images are beyond [0, 1] without a window, or the path has another
    ending, TypeError for what are no arrays.
    """
    images, window, (maps,) = _checked(images, {"maps": maps}, window, scale, captions)
    N, columns = len(images), 2 if len(images) > 3 else 1
    lines = -(-N // columns)
    H, W = maps.shape[1:]
    wide, high = 1.75 * min(2.5, max(0.4, W / H)), 1.75
    triple = 3 * wide + 2 * GAP  # what belongs to one image
    masks, signed = maps.dtype == bool, bool((maps < 0).any())
    beside = 0.0 if masks else 1.1
    across = 2 * figure.MARGIN + columns * triple + (columns - 1) * 0.35 + beside
    pixel = min(wide / W, high / H)
    dpi = figure.dots(across, lines * (high + 0.5) + 0.5, pixel)
    small = _drawn(maps, pixel * dpi)
    limits = _limits(small, scale)
    own = scale == "image" and not masks
    ends = [f"end {limit:.2g}" if own else "" for limit in limits]
    above = captions_of(captions, N, triple - max(width(end, NOTE) + 0.1 * own for end in ends))
    head = max(height(text, CAPTION) for text in [*above, *ends]) + 0.03
    down = lines * (head + high + GAP) - GAP
    note = wrapped(
        note_of(images, window, scale if not masks else "", pixel * dpi, "all maps"), across - 2 * figure.MARGIN, NOTE
    )
    sheet = Sheet(across, down + 0.05 + height(note, NOTE), title, dpi)
    shades = None
    for n in range(N):
        x, y = figure.MARGIN + n % columns * (triple + 0.35), n // columns * (head + high + GAP) + head
        plain, alone, over = (sheet.cell(x + i * (wide + GAP), y, wide, high) for i in range(3))
        draw(plain, images[n], window=window)
        if masks:
            draw(alone, None, maps[n])
            draw(over, images[n], maps[n], window=window, say=False)
        else:
            colors = _colors(signed, limits[n])
            shades = draw(alone, None, maps[n], colors)
            draw(over, images[n], maps[n], colors, window=window, say=False)
        sheet.write(x, y - 0.03, above[n], CAPTION)
        sheet.write(x + triple, y - 0.03, ends[n], NOTE, color=GREY, ha="right")
    if shades is not None:
        upright_bar(sheet, shades, across - figure.MARGIN - beside + 0.15, head, down - head, unit, scale)
    sheet.write(figure.MARGIN, down + 0.05, note, NOTE, va="top", color=GREY)
    return sheet.save(path)


def comparison(
    path: Path | None,
    images: Array,
    maps: Mapping[str, Array],
    captions: Sequence[str] | None = None,
    title: str = "",
    window: tuple[float, float] | None = None,
    scale: str = "shared",
) -> Drawing:
    """images (N,C,H,W) down, and across, for each name in `maps`, its maps (N,H,W) over the images in grey.

    Every column has a scale of its own, the same for all images, because the methods speak of different things; its colour
    bar stands below. With scale="image" every single map has its own, whose end is written above it. Signs, colours, masks,
    captions, title, window, warnings, averages, the kinds of files and what is raised are as in `overlays`.
    """
    images, window, arrays = _checked(images, maps, window, scale, captions)
    N, (H, W) = len(images), images.shape[2:]
    wide, high = 1.35 * min(2.5, max(1, W / H)), 1.35
    own = scale == "image"
    heads = fitted_lines(figure.lines(list(maps)), wide, 9.5)
    above = captions_of(captions, N, wide)
    head = max([height(text, CAPTION) for text in above] + [NOTE * LINE if own else 0.0]) + 0.04
    first = max(head, max(height(text, 9.5) for text in heads) + (NOTE * LINE if own else 0) + 0.04)
    across = 2 * figure.MARGIN + (len(maps) + 1) * (wide + GAP) - GAP
    down = first + N * high + (N - 1) * head
    pixel = min(wide / W, high / H)
    dpi = figure.dots(across, down + 0.8, pixel)
    note = wrapped(note_of(images, window, scale, pixel * dpi, "all maps of a column"), across - 2 * figure.MARGIN, NOTE)
    sheet = Sheet(across, down + 0.4 + height(note, NOTE), title, dpi)
    tops = [first + n * (high + head) for n in range(N)]
    for image, y, caption in zip(images, tops, above, strict=True):
        draw(sheet.cell(figure.MARGIN, y, wide, high), image, window=window)
        sheet.write(figure.MARGIN, y - 0.04, caption, CAPTION)
    for k, (name, values) in enumerate(zip(heads, arrays, strict=True), start=1):
        x = figure.MARGIN + k * (wide + GAP)
        masks, signed = values.dtype == bool, bool((values < 0).any())
        small = _drawn(values, pixel * dpi)
        limits = _limits(small, scale)
        for n, y in enumerate(tops):
            colors = None if masks else _colors(signed, limits[n])
            shades = draw(sheet.cell(x, y, wide, high), images[n], values[n], colors, window=window)
            if own and not masks:
                sheet.write(x + wide / 2, y - 0.04, f"end {limits[n]:.2g}", NOTE, color=GREY, ha="center")
        sheet.write(x + wide / 2, first - 0.04 - (NOTE * LINE if own else 0), name, 9.5, ha="center")
        if not masks:
            _bar(sheet, shades, x, down + 0.08, wide, 0.09, scale)
    sheet.write(figure.MARGIN, down + 0.4, note, NOTE, va="top", color=GREY)
    return sheet.save(path)


def captions_of(captions: Sequence[str] | None, N: int, room: float, size: float = CAPTION) -> list[str]:
    """No wider than the room; where there are none, nothing for each of N images."""
    return [""] * N if captions is None else fitted_lines(figure.lines(captions), room, size)


def _checked(
    images: Array, maps: Mapping[str, Array], window: Window | None, scale: str, captions: Sequence[str] | None
) -> tuple[Array, Window, list[Array]]:
    """All on the CPU, and of shapes that go together."""
    for name, a in mapping(maps, "maps", "method -> its maps (N,H,W)").items():
        values_of(a, name, getattr(a, "shape", ()))
    images, window = images_and_window(images, window)
    one_of(scale, "scale", SCALES)
    if not maps:
        raise ValueError("maps: there is none")
    N, _, H, W = images.shape
    if captions is not None and len(captions) != N:
        raise ValueError(f"captions: expected one for each of {N} images, got {len(captions)}")
    arrays = [values_of(a, name, (N, H, W)) for name, a in maps.items()]
    for name, a in zip(maps, arrays, strict=True):
        lost = np.isnan(a).any((1, 2))
        if lost.any():
            which = np.flatnonzero(lost).tolist()
            warnings.warn(f"{name}: NaN or infinity for images {which}, which stay without colour there", stacklevel=3)
        blank = np.flatnonzero(~a.any((1, 2))).tolist()
        if blank:
            warnings.warn(f"{name}: 0 everywhere for images {blank}, which are drawn without colour", stacklevel=3)
    return images, window, arrays


def _drawn(maps: Array, dots: float) -> Array:
    """The values that are drawn where a pixel is so many dots wide: averages where it is less than one."""
    return maps if maps.dtype == bool else averaged(maps, block(1, dots))


def _limits(maps: Array, scale: str) -> list[float]:
    """The end of the scale of each map."""
    if maps.dtype == bool:
        return [1.0] * len(maps)
    return [limit_of(one) for one in maps] if scale == "image" else [limit_of(maps)] * len(maps)


def note_of(images: Array, window: Window, scale: str, dots: float, which: str) -> str:
    """What is to be known about all of the figure."""
    C, low, high = images.shape[1], *window
    said = {"shared": f"one scale for {which}", "image": "a scale for each map, whose end is written above it"}.get(scale, "")
    parts = [said] if said else []
    if C == 2 or C > 3:
        parts.append(f"of {C} channels, {'the first is' if C == 2 else 'the first three are'} shown")
    if window != (0, 1) and not (images.dtype == np.uint8 and window == (0, 255)):
        parts.append(f"grey values from {low:g} to {high:g}")
    k = block(1, dots)
    if k > 1:
        parts.append(f"means of {k} × {k} pixels")
    return "; ".join(parts)


def color_scale(maps: Array) -> dict[str, Any]:
    """The scale of some maps, for `imshow`: colours that are the more opaque the larger a value."""
    return _colors(bool((maps < 0).any()), limit_of(maps))


def _colors(signed: bool, limit: float) -> dict[str, Any]:
    if signed:
        return {"cmap": _fading("RdBu_r", signed=True), "vmin": -limit, "vmax": limit}
    return {"cmap": _fading("YlOrRd", signed=False), "vmin": 0, "vmax": limit}


def _fading(name: str, signed: bool) -> Colormap:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    t = np.linspace(-1 if signed else 0, 1, 256)
    colors = colormaps[name](np.linspace(0, 1, 256))
    colors[:, 3] = np.clip(1.6 * np.abs(t), 0, 0.92)
    return ListedColormap(colors)


def draw(
    ax: Axes,
    image: Array | None,
    values: Array | None = None,
    colors: Mapping[str, Any] | None = None,
    window: tuple[float, float] | None = None,
    say: bool = True,
) -> AxesImage:
    """An image, a map, or a map over the image in pale grey; of a mask (bool) the outline. Returns what was drawn last.

    say: write into a map that it is 0 everywhere, or that it holds NaN.
    """
    if image is not None:
        pixels = for_the_eye(image, window)
        unknown: Any = np.isnan(pixels)
        if values is not None:
            grey = pixels if pixels.ndim == 2 else pixels @ (0.299, 0.587, 0.114)
            pixels = 0.35 + 0.65 * grey
        shown = ax.imshow(np.where(np.isnan(pixels), 1.0, pixels), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if unknown.any() and values is None:
            _say_lost(ax, np.any(unknown, 2) if unknown.ndim == 3 else unknown)
    if values is not None and values.dtype == bool:
        if image is None:
            shown = ax.imshow(np.ones(values.shape), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        _outline(ax, values)
    elif values is not None and colors is not None:
        shown = ax.imshow(values, interpolation="nearest", **colors)
    if values is not None and say:
        if np.isnan(values).any():
            _say_lost(ax, np.isnan(values))
        elif not values.any():
            _say(ax, "empty mask" if values.dtype == bool else "0 everywhere")
    return shown


def _say_lost(ax: Axes, lost: Any) -> None:
    _say(ax, f"NaN in {lost.sum():,} of {lost.size:,} pixels")


def _say(ax: Axes, text: str) -> None:
    """A few words at the lower edge of a panel."""
    room = ax.get_window_extent().width / ax.figure.dpi - 0.06
    around = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    lines = wrapped(text, room, TICK)
    ax.text(0.5, 0.03, lines, fontsize=TICK, color=GREY, ha="center", va="bottom", transform=ax.transAxes, bbox=around)


def _outline(ax: Axes, mask: Array) -> None:
    """A line along the edges of the pixels, between those in the mask and those that are not."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    padded = np.pad(mask, 1)
    pieces = list[Any]()
    for turned, flip in (padded, False), (padded.T, True):
        edges = turned[1:] != turned[:-1]  # edges[i, j]: between pixel i - 1 and i of column j - 1
        runs = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        (rows, begins), (_, ends) = np.nonzero(runs == 1), np.nonzero(runs == -1)
        along, place = np.stack([begins, ends], 1) - 1.5, np.stack([rows, rows], 1) - 0.5
        pieces.append(np.stack([place, along] if flip else [along, place], 2))
    lines = np.concatenate(pieces)
    if len(lines) > FRAYED:  # no lines but the pixels along them, or they would take a minute
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        ax.imshow((mask & ~inside)[..., None] * np.array(to_rgba(BLUE)), interpolation="nearest")
        return
    for color, thickness in ("white", 2.4), (BLUE, 1.2):
        style: dict[str, Any] = {"colors": color, "linewidths": thickness, "capstyle": "projecting"}
        ax.add_collection(LineCollection(list(lines), **style), autolim=False)


def upright_bar(sheet: Sheet, shades: AxesImage, x: float, y: float, high: float, unit: str, scale: str) -> None:
    """A colour bar beside cells that are so high, and beside it what the colours mean."""
    length = min(high, 6.0)
    middle = y + high / 2
    _bar(sheet, shades, x, middle - length / 2, 0.13, length, scale)
    label = wrapped(unit, length, CAPTION, most=2)
    sheet.write(x + 0.8, middle, label, CAPTION, rotation=90, ha="center", va="center", color=GREY)


def _bar(sheet: Sheet, shades: AxesImage, x: float, y: float, wide: float, high: float, scale: str) -> None:
    """A colour bar in a cell of its own: upright where it is higher than wide, with its ends, 0 and what else has room."""
    upright = high > wide
    least, most = shades.get_clim()
    ticks = np.linspace(least, most, 5) if upright else [least, 0, most] if least < 0 else [least, most]
    end = {-1.0: "−end", 0.0: "0", 1.0: "end"}
    texts = [end.get(round(t / most, 6), "") if scale == "image" else f"{t:.2g}" for t in ticks]
    if not upright and sum(width(text, TICK) + 0.05 for text in texts) > wide:
        ticks, texts = [ticks[0], ticks[-1]], [texts[0], texts[-1]]
    cax = sheet.figure.add_axes(sheet.box(x, y, wide, high))
    bar = sheet.figure.colorbar(shades, cax=cax, orientation="vertical" if upright else "horizontal", ticks=list(ticks))
    axis = bar.ax.yaxis if upright else bar.ax.xaxis
    labels = axis.set_ticklabels([fitted_one(text, 0.7, TICK) for text in texts], fontsize=TICK, color=GREY)
    if not upright:
        labels[0].set_horizontalalignment("left")  # or those of the next bar would touch it
        labels[-1].set_horizontalalignment("right")
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
