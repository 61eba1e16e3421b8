"""Deletion and insertion: how fast the score falls as a map's highest pixels go, and how fast it rises as they come.

Petsiuk, Das and Saenko 2018, "RISE: randomized input sampling for explanation of black-box models", section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidl import arguments
from minidl.arguments import count
from minidl.array import Array, array_module, device_of, to_cpu, to_device
from minidl.contexts import contained
from minidl.core import no_grad
from minidl.inference.batches import Progress, batches
from minidl.inference.evaluation import classes_and_scores, evaluation_mode, logits_of
from minidl.inference.images import as_images, check_images
from minidl.inference.scores import Output, Target, score
from minidl.nn import Module


@dataclass(frozen=True, eq=False)
class Curve:
    """share (T+1,) of the pixels that were deleted or inserted, from 0 on, and score (N,T+1), the scores then, on the CPU."""

    share: Array
    score: Array

    @property
    def auc(self) -> Array:
        """The area under each curve (N,), by the trapezoid rule. A good map's is small for deletion, large for insertion."""
        area: Array = np.trapezoid(self.score, self.share, axis=1)
        return area


@contained
def deletion(
    model: Module,
    x: Array,
    maps: Array,
    target: Target = None,
    baseline: float | Array = 0.0,
    steps: int = 32,
    output: Output = "prob",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Curve:
    """The scores of x as its pixels, those highest in `maps` first, take the values of `baseline`, in `steps` equal steps.

    Args:
        x: images (N,C,H,W) as in training.
        maps: (N,H,W). Equal pixels go in random order.
        target: the class, one for all or one for each; None: the one that the model predicts for x.
        baseline: what a pixel becomes, a number or what broadcasts to x: 0 is the mean colour of normalised images. An
            image that the net never saw the like of can move the score for that reason alone; compare several.
        output: the score, as in `explain.saliency`.
        batch_size: images in memory at a time.
        seed: of the order of equal pixels.
        progress: False, True (a bar), or a function of (done, total).

    Petsiuk, Das and Saenko 2018, "RISE: randomized input sampling for explanation of black-box models", section 4.2.

    Raises TypeError and ValueError for an argument that cannot be, MemoryError where a batch does not fit into memory.
    """
    return _by_baseline(model, x, maps, target, baseline, steps, output, batch_size, seed, progress, "deletion")


@contained
def insertion(
    model: Module,
    x: Array,
    maps: Array,
    target: Target = None,
    baseline: float | Array = 0.0,
    steps: int = 32,
    output: Output = "prob",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Curve:
    """The scores of `baseline` as its pixels, those highest in `maps` first, take the values of x.

    The arguments, the source, and what is raised, are those of `deletion`.
    """
    return _by_baseline(model, x, maps, target, baseline, steps, output, batch_size, seed, progress, "insertion")


def _by_baseline(
    model: Module,
    x: Array,
    maps: Array,
    target: Target,
    baseline: float | Array,
    steps: int,
    output: Output,
    batch_size: int,
    seed: int,
    progress: Progress,
    name: str,
) -> Curve:
    check_images(model, x, target)
    steps, seed = count(steps, "steps"), count(seed, "seed", 0)
    rank = ranks_of(x, maps, seed)
    xp, (_, _, H, W) = array_module(x), x.shape
    if steps > H * W:
        raise ValueError(f"steps: there are {H * W} pixels, got {steps} steps")
    filler = as_images(baseline, x, "baseline")

    def changed(first: Array, pick: Array, t: Array) -> Array:
        gone, there = (filler, x) if name == "deletion" else (x, filler)
        return xp.where(first, gone[pick], there[pick])

    counts = np.rint(np.linspace(0, H * W, steps + 1)).astype(np.int64)
    return curve(model, x, rank, counts, changed, target, output, batch_size, progress, name)


def ranks_of(x: Array, maps: Array, seed: int) -> Array:
    """(N,1,H,W), where x is: each pixel's place when those highest in the maps come first, equal ones in random order.

    All images share the draws.
    """
    (N, _, H, W), ranked = x.shape, arguments.maps(maps)
    if ranked.shape != (N, H, W):
        raise ValueError(f"maps: expected {(N, H, W)}, one map an image, got {ranked.shape}")
    tie = np.random.default_rng(seed).random(H * W)
    order = np.stack([np.lexsort((tie, -m)) for m in ranked.reshape(N, -1)])
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(H * W), order.shape), 1)
    return to_device(rank.reshape(N, 1, H, W), device_of(x))


def curve(
    model: Module,
    x: Array,
    rank: Array,
    counts: Array,
    changed: Callable[[Array, Array, Array], Array],
    target: Target,
    output: Output,
    batch_size: int,
    progress: Progress,
    name: str,
) -> Curve:
    """The scores of x with the first of `counts` (T,) pixels of each image changed.

    changed: f(first, pick, t) gives so many images, those of x at `pick` (B,), with the pixels `first` (B,1,H,W) changed;
    t (B,), on the CPU, tells which of the counts.
    """
    N, pixels = len(x), rank[0].size
    classes, _ = classes_and_scores(model, x, target, output, batch_size)
    scores = np.empty((N, len(counts)))
    for part in batches(N * len(counts), batch_size, progress, name):
        with evaluation_mode(model, batch_size), no_grad():
            i, t = np.divmod(np.arange(part.start, part.stop), len(counts))
            pick = to_device(i, device_of(x))
            first = rank[pick] < to_device(counts[t], device_of(x))[:, None, None, None]
            logits = logits_of(model, changed(first, pick, t))
            scores[i, t] = to_cpu(score(logits, classes[pick], output).data)
    return Curve(counts / pixels, scores)
