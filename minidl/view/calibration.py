"""Whether probabilities mean what they say, drawn: how often what was predicted came true."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minidl.io.files import Path
from minidl.metrics import Reliability
from minidl.view.figure import GREY, Drawing
from minidl.view.square import GUESSING, check, check_shares, digits, square, style

LOWER = 1.0  # inches of the lower axes


def calibration(path: Path | None, tables: Mapping[str, Reliability], title: str = "") -> Drawing:
    """The share that came true over the probability that was predicted, a point for each bin.

    Below stands how many of the images are in each. What means what it says lies on the dotted diagonal; a net that is too sure
    of itself lies below it. Bins without images have no point. Names and the kinds of files are as in `roc`.

    Args:
        tables: what `metrics.reliability` gives, by the names of classes or runs.

    Raises ValueError where there is no table, one has no image, a share is outside [0, 1], or for another ending, TypeError for
    what is no table.
    """
    check(tables, Reliability, "tables", "metrics.reliability")
    told = {}
    for name, table in tables.items():
        some = np.asarray(table.counts) > 0
        check_shares(table.confidence[some], f"tables[{name!r}].confidence")
        check_shares(table.frequency[some], f"tables[{name!r}].frequency")
        images = f"{table.counts.sum():,} images in {some.sum()} of {len(some)} bins"
        told[name] = [f"expected calibration error {digits(table.ece)}", images]
    sheet, ax, lower = square(told, title, "predicted probability", "share that came true", LOWER)
    assert lower is not None
    ax.plot([0, 1], [0, 1], color=GREY, **GUESSING)
    for i, table in enumerate(tables.values()):
        some = table.counts > 0
        ax.plot(table.confidence[some], table.frequency[some], marker="o", ms=4, zorder=3, clip_on=False, **style(i))
        lower.stairs(100 * table.counts / table.counts.sum(), table.edges, baseline=None, zorder=3, **style(i))
    lower.set_ylim(0)
    return sheet.save(path)
