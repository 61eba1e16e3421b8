"""Which pixels of an image can be picked: a few that have a number, and all others, or of a large image one in each block."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from minidl.array import Array

At = tuple[int, int]  # row, column


def numbered_pixels(g: Array, count: int, picked: Sequence[At]) -> list[At]:
    """Those picked, then `count` in all: of the largest gradient g (C,H,W), and last a corner."""
    corner = [(0, 0)] if len(picked) < count and (0, 0) not in picked else []
    return [*picked, *strongest_pixels(g, count - len(picked) - len(corner), [*picked, *corner]), *corner]


def strongest_pixels(g: Array, count: int, taken: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """(row, column) of `count` pixels where max |g| (C,H,W) over the channels is largest, apart from each other and `taken`."""
    size = np.abs(g).max(0)
    H, W = size.shape
    apart = max(H, W) / 10
    found = list(taken)
    for k in np.argsort(-size, axis=None, kind="stable"):
        i, j = divmod(int(k), W)
        if len(found) == len(taken) + count:
            break
        if all(np.hypot(i - y, j - x) > apart for y, x in found):
            found.append((i, j))
    return found[len(taken) :]


def others(g: Array, count: int, taken: Sequence[At]) -> list[At]:
    """All pixels of g (C,H,W) but those taken, where it has at most `count`; else of each block of b by b pixels that with the
    largest max |g|, with b as small as can be."""
    size = np.abs(g).max(0)
    H, W = size.shape
    b = next((b for b in range(1, max(H, W) + 1) if -(-H // b) * -(-W // b) <= count), 0)
    found = []
    for i, j in itertools.product(range(0, H, b), range(0, W, b)) if b else ():
        block = size[i : i + b, j : j + b]
        y, x = divmod(int(block.argmax()), block.shape[1])
        found.append((i + y, j + x))
    return [at for at in found if at not in set(taken)]
