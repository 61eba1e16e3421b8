"""Maps without their images: what an Explanation shows of itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl.array import Array
from minidl.view import figure
from minidl.view.display import averaged, block, values_of
from minidl.view.figure import Drawing, Sheet
from minidl.view.fit import height
from minidl.view.maps import CAPTION, GAP, captions_of, color_scale, draw, upright_bar

SIDE, COLUMNS = 1.6, 4  # inches of a map, maps beside each other


def alone(maps: Array, captions: Sequence[str], title: str = "", unit: str = "") -> Drawing:
    """Maps (N,H,W) on white, each below its caption, with one scale and its colour bar. Colours are as in `overlays`.

    Raises TypeError or ValueError for what is no array of maps.
    """
    maps = values_of(maps, "maps", getattr(maps, "shape", ())).astype(np.float64)
    N, H, W = maps.shape
    columns = min(N, COLUMNS)
    wide, high = SIDE * min(2.5, max(0.4, W / H)), SIDE
    above = captions_of(captions, N, wide)
    head = max(height(text, CAPTION) for text in above) + 0.04
    across = 2 * figure.MARGIN + columns * (wide + GAP) - GAP + 1.1
    down = -(-N // columns) * (head + high + GAP) - GAP
    pixel = min(wide / W, high / H)
    dpi = figure.dots(across, down + 0.5, pixel)
    colors = color_scale(averaged(maps, block(1, pixel * dpi)))
    sheet = Sheet(across, down, title, dpi)
    for n in range(N):
        x, y = figure.MARGIN + n % columns * (wide + GAP), n // columns * (head + high + GAP) + head
        shades = draw(sheet.cell(x, y, wide, high), None, maps[n], colors)
        sheet.write(x, y - 0.03, above[n], CAPTION)
    upright_bar(sheet, shades, across - figure.MARGIN - 0.95, head, down - head, unit, "shared")
    return sheet.save(None)
