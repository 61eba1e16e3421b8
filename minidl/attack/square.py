"""No gradients: squares at random, and what brings the margin down is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from minidl.arguments import count, number
from minidl.array import Array, array_like, array_module
from minidl.attack.ball import Bounds, check_norm, normalize, project, rng_of, sizes
from minidl.attack.best import Best, put
from minidl.attack.common import PerChannel, answers, attacked, check_bounds, on_images
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress
from minidl.inference.scores import Target
from minidl.nn import Module

# the share of the pixels under a square is p, p/2, p/4, ...: halved after so many of 10,000 steps
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
LEAST = 1e-12  # in the place of a length of 0


@contained
def square(
    model: Module,
    x: Array,
    y: Target = None,
    eps: float = 8 / 255,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    norm: str = "linf",
    steps: int = 5000,
    p: float = 0.8,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """x <- x', a random change of x in one square, where S_y - max_{k != y} S_k is smaller at x' than at x

    and, of a targeted attack, larger. With norm "linf" x' is the original + eps or - eps in the square, one sign a channel; at
    the start these are vertical stripes, one pixel wide. With "l2" what the change has in a second square moves into the
    first, as two peaks of opposite signs, and the whole has the length eps; at the start it is a grid of such peaks. The model
    is only asked for its logits, so that no gradient that vanishes, or misleads, is in the way. Andriushchenko, Croce,
    Flammarion and Hein 2020, "Square attack: a query-efficient black-box adversarial attack via random search", algorithms 1
    to 3, and the schedule of section 3.

    Returns the first image that succeeds, or, where none does, the one whose margin came nearest to that. What succeeds
    without an attack stays as it is.

    Args:
        eps, norm: as in `pgd`.
        steps: so many squares are tried, each one forward pass of the images that stand; 5,000 in AutoAttack.
        p: the share of the pixels under the first square. It is halved nine times, after 0.1% of the steps to after 80%.
        seed: of stripes and squares; those of image i depend on (seed, i) alone.
        keep_path: keep the images of every step: steps + 2 times the memory of x.

    The other arguments, and what is raised, are those of `fgsm`.
    """
    check_norm(norm)
    eps, bounds = number(eps, "eps", "[0, inf)"), check_bounds(bounds)
    steps, seed, p = count(steps, "steps", 0), count(seed, "seed", 0), number(p, "p", "(0, 1]")
    net = on_images(model, x, mean, std)

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        xp, kept, now = array_module(x), Best(net, x, classes, targeted), x
        rngs = [rng_of(seed, i) for i in range(part.start, part.stop)]
        level = xp.full(len(x), np.inf)  # distance from success of what the squares are drawn on; stripes are taken in any case
        for t in range(steps):
            at = kept.todo
            if len(at) == 0:
                break
            drawn = [rngs[i] for i in at.tolist()]
            if t == 0:
                d = (stripes if norm == "linf" else grid)(x[at], eps, drawn)
            else:
                d = (recolour if norm == "linf" else move_mass)(now[at] - x[at], eps, area(p, t, steps), drawn)
            tried = project(x[at], d, eps, norm, bounds)
            logits = answers(net, tried)
            kept.see(at, tried, logits)
            found = kept.distances(logits, classes[at])
            closer = found < level[at]
            level[at[closer]] = found[closer]
            now = put(now, at[closer], tried[closer])
            yield now
        yield kept.x

    params = {
        "method": "square",
        "eps": eps,
        "bounds": bounds,
        "targeted": targeted,
        "norm": norm,
        "steps": steps,
        "p": p,
        "seed": seed,
    }
    return attacked(net, x, y, core, steps + 1, bounds, targeted, batch_size, progress, keep_path, params)


def area(p: float, t: int, steps: int) -> float:
    """The share of the pixels under the square of step t of so many."""
    return p / 2 ** sum(10_000 * t // steps > halved for halved in HALVED)


def stripes(x: Array, eps: float, rngs: list[np.random.Generator]) -> Array:
    """eps or -eps (n,C,H,W), the same in a column of a channel."""
    C, W = x.shape[1], x.shape[3]
    signs = np.stack([rng.integers(0, 2, (C, 1, W)) for rng in rngs]) * 2 - 1
    return array_like(eps * np.broadcast_to(signs, x.shape), x, x.dtype)


def recolour(d: Array, eps: float, p: float, rngs: list[np.random.Generator]) -> Array:
    """d (n,C,H,W) with eps or -eps, one sign a channel, in a square with a share p of the pixels."""
    _, C, H, W = d.shape
    u = draws(rngs, 2 + C, d)
    _, _, inside = window(u[:, 0], u[:, 1], min(max(round(math.sqrt(p * H * W)), 1), H, W), d)
    return array_module(d).where(inside, eps * signs_of(u[:, 2:], d), d)


def grid(x: Array, eps: float, rngs: list[np.random.Generator]) -> Array:
    """Peaks (n,C,H,W), five by five of them in a square image, of random signs and directions; eps long as a whole."""
    _, C, H, W = x.shape
    side = max(min(H, W) // 5, 1)
    rows, columns, found = H // side, W // side, np.zeros(x.shape)
    top, left = (H - rows * side) // 2, (W - columns * side) // 2
    for i, rng in enumerate(rngs):
        signs, upright = rng.integers(0, 2, (C, rows, columns)) * 2 - 1, rng.integers(0, 2, (1, rows, columns))
        tiles = np.kron(signs * upright, peaks(side)[0]) + np.kron(signs * (1 - upright), peaks(side)[1])
        found[i, :, top : top + rows * side, left : left + columns * side] = tiles
    return eps * normalize(array_like(found, x, x.dtype))


def move_mass(d: Array, eps: float, p: float, rngs: list[np.random.Generator]) -> Array:
    """d (n,C,H,W), eps long: what a square has, another one gets, in peaks added to what is there already.

    In each channel the first square then has the length sqrt(|d in both|^2 + (eps^2 - |d|^2) / C), and the second one 0.
    """
    xp, (_, C, H, W) = array_module(d), d.shape
    side = max(round(math.sqrt(p * H * W)), 3)
    side = min(side + 1 - side % 2, H, W)
    u = draws(rngs, 5 + C, d)
    rows, columns, first = window(u[:, 0], u[:, 1], side, d)
    _, _, second = window(u[:, 2], u[:, 3], side, d)
    turned = (u[:, 4] < 0.5).astype("int64")[:, None, None]
    patterns = array_like(peaks(side), d, d.dtype)
    pattern = patterns[turned, rows.clip(0, side - 1)[:, :, None], columns.clip(0, side - 1)[:, None, :]][:, None]
    there = xp.where(first, d, 0)
    added = xp.where(first, signs_of(u[:, 5:], d) * pattern, 0) + there / xp.maximum(lengths(there), LEAST)
    left = (eps**2 - sizes(d, "l2") ** 2).clip(0, None) / C
    budget = xp.sqrt(lengths(xp.where(first | second, d, 0)) ** 2 + left)
    moved = xp.where(first, budget * added / xp.maximum(lengths(added), LEAST), xp.where(second, 0, d))
    return (eps * normalize(moved)).astype(d.dtype)


def lengths(d: Array) -> Array:
    """The l2 length of every channel of d (n,C,H,W): (n,C,1,1)."""
    found: Array = array_module(d).sqrt((d**2).sum(axis=(2, 3), keepdims=True))
    return found


@lru_cache(64)
def peaks(side: int) -> Array:
    """Two peaks of opposite signs (2,side,side), one above the other and one beside the other, each 1 long.

    A peak is the sum of squares around its middle, of 1, 3, 5, ... pixels, the k-th with the weight 1 / k^2.
    """

    def peak(h: int, w: int) -> Array:
        ring = np.maximum(np.abs(np.arange(h) - h // 2)[:, None], np.abs(np.arange(w) - w // 2))
        weights = 1 / np.arange(1, max(h, w) // 2 + 2) ** 2.0
        found: Array = weights[::-1].cumsum()[::-1][ring]
        return found

    pair = np.concatenate([peak(side // 2, side), -peak(side - side // 2, side)])
    pair /= np.sqrt((pair**2).sum())
    return np.stack([pair, pair.T])


def draws(rngs: list[np.random.Generator], n: int, like: Array) -> Array:
    """n numbers in [0, 1) of each generator."""
    return array_like(np.stack([rng.random(n) for rng in rngs]), like)


def signs_of(u: Array, like: Array) -> Array:
    """1 or -1 (n,C,1,1) of u (n,C) in [0, 1)."""
    return array_module(u).where(u < 0.5, -1, 1).astype(like.dtype)[:, :, None, None]


def window(u: Array, v: Array, side: int, like: Array) -> tuple[Array, Array, Array]:
    """Rows (n,H) and columns (n,W) counted from the corner of a square at u, v (n,) in [0, 1), and what is inside (n,1,H,W)."""
    xp, (_, _, H, W) = array_module(like), like.shape
    rows = xp.arange(H) - (u * (H - side + 1)).astype("int64")[:, None]
    columns = xp.arange(W) - (v * (W - side + 1)).astype("int64")[:, None]
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
    return rows, columns, inside
