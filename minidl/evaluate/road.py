"""Deletion without a colour for what is gone: pixels are put in from those around them, so that no hole gives them away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl import arguments
from minidl.array import Array, array_module, device_of, to_device
from minidl.contexts import contained
from minidl.evaluate.curves import Curve, curve, ranks_of
from minidl.evaluate.imputation import imputed
from minidl.inference.batches import Progress
from minidl.inference.images import check_images
from minidl.inference.scores import Output, Target
from minidl.nn import Module

ORDERS = ("morf", "lerf")


@contained
def road(
    model: Module,
    x: Array,
    maps: Array,
    target: Target = None,
    order: str = "morf",
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    noise: float = 0.01,
    output: Output = "prob",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Curve:
    """The scores of x with a share of its pixels, those highest or lowest in `maps`, each the weighted mean of its neighbours

    plus noise: u_i = sum_j w_ij u_j / sum_j w_ij + N(0, noise^2), over the 8 neighbours in the image, w = 1/6 beside and 1/12
    at the corners, which is a system of equations for the missing pixels. Where pixels become one colour, the form of the hole
    tells of the class, and a map is measured by its form. Rong, Leemann, Borisov, Kasneci and Kasneci 2022, "A consistent and
    efficient evaluation strategy for attribution methods". A good map's curve falls early where the most relevant pixels go
    first, and late where the least relevant do. With output="margin" the score is above 0 where the class is still
    the answer: the mean of `score > 0` is the accuracy that the paper draws.

    Args:
        x: images (N,C,H,W) as in training.
        maps: (N,H,W). Equal pixels go in random order.
        order: "morf", the most relevant first, or "lerf", the least relevant first.
        shares: of the pixels that are missing, rising, each in (0, 1); the curve begins with none. Of all there is no mean.
        noise: standard deviation, in units of x. All images share the draws.
        seed: of the noise, and of the order of equal pixels.
        target, output, batch_size, progress: as in `deletion`.

    Raises TypeError and ValueError for an argument that cannot be, MemoryError where a batch does not fit into memory.
    """
    check_images(model, x, target)
    arguments.one_of(order, "order", ORDERS)
    seed = arguments.count(seed, "seed", 0)
    shares, noise = arguments.numbers(shares, "shares", "(0, 1)"), arguments.number(noise, "noise", "[0, inf)")
    pixels = x.shape[2] * x.shape[3]
    counts = np.array([0, *(min(round(share * pixels), pixels - 1) for share in shares)])
    if not shares or (np.diff(shares) <= 0).any():
        raise ValueError(f"shares: expected at least one, each larger than that before, got {shares}")
    maps = arguments.maps(maps)
    rank = ranks_of(x, maps if order == "morf" else -maps, seed)

    def changed(first: Array, pick: Array, t: Array) -> Array:
        known = x[pick]
        draws = {k: np.random.default_rng((seed, k)).standard_normal(x.shape[1:]) for k in sorted({*t.tolist()})}
        e = to_device(np.stack([draws[k] for k in t.tolist()]), device_of(x))
        return array_module(x).where(first, (imputed(known, first) + noise * e).astype(x.dtype), known)

    return curve(model, x, rank, counts, changed, target, output, batch_size, progress, "ROAD")
