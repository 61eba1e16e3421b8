"""The confounder: half of the marks are strokes of a surgeon's violet pen, the others short rulers in the same ink."""

from __future__ import annotations

import numpy as np

from minidl.array import Array

# As `scene.VARIES`: uniform from low to high, lengths in lesion radii
MARK_VARIES = {
    "chance": (0.0, 1.0),  # below its probability there is a mark
    "ruler": (0.0, 1.0),  # above 1/2 it is a ruler
    "angle": (0.0, 2 * np.pi),
    "half": (0.40, 0.50),  # half its length
    "width": (0.22, 0.34),
    "bend": (-0.60, 0.60),  # of the stroke: how far its ends are off its middle, in half lengths
    "pigment": (0.8, 1.4),
}
BLUR = 1.0  # pixels over which its edge fades


class Mark:
    """n marks with the settings `v` of `MARK_VARIES`, (n,1,1) each, beside lesions of radius `r` (n,1,1) pixels."""

    def __init__(self, v: dict[str, Array], r: Array) -> None:
        self.v, self.half, self.width = v, v["half"] * r, v["width"] * r
        ends = self.half * np.sqrt(1 + v["bend"] ** 2 / 4)  # from the centre
        self.radius = ends + 0.5 * (self.width + BLUR)  # no ink is further away

    def ink(self, dy: Array, dx: Array) -> Array:
        """The pigment at (dy, dx), (n,S,S) each, from the marks' centres."""
        sin, cos = np.sin(self.v["angle"]), np.cos(self.v["angle"])
        along, across = cos * dx + sin * dy, cos * dy - sin * dx
        ends = self.half - np.abs(along)  # this, and all that follows: pixels from a point to the edge, above 0 inside

        # a stroke: the parabola across = bend half ((along / half)^2 - 1/2), as wide as the pen
        parabola = self.v["bend"] * self.half * ((along / self.half) ** 2 - 0.5)
        stroke = np.minimum(self.width / 2 - np.abs(across - parabola), ends)

        # a ruler: a thin line with five ticks on one side
        step = self.half / 2.1
        tick = along - step * np.round(along / step)
        line = np.minimum(self.width / 6 - np.abs(across + self.width / 3), ends)
        ticks = np.minimum(self.width / 8 - np.abs(tick), self.width / 2 - np.abs(across))
        ruler = np.maximum(line, np.minimum(ticks, ends))

        inside = np.where(self.v["ruler"] > 0.5, ruler, stroke)
        pigment: Array = self.v["pigment"] * np.clip(0.5 + inside / BLUR, 0, 1)
        return pigment
