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
from minidl.inference.scores import Target, score
from minidl.nn import Module


@dataclass(frozen=True, eq=False)
class Curve:
    """share (T+1,) of the pixels that were deleted or inserted, from 0 to 1, and score (N,T+1), the scores then, on the CPU."""

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
    output: str = "prob",
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
    return _curve(model, x, maps, target, baseline, steps, output, batch_size, seed, progress, "deletion", _deleted)


@contained
def insertion(
    model: Module,
    x: Array,
    maps: Array,
    target: Target = None,
    baseline: float | Array = 0.0,
    steps: int = 32,
    output: str = "prob",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Curve:
    """The scores of `baseline` as its pixels, those highest in `maps` first, take the values of x.

    The arguments, the source, and what is raised, are those of `deletion`.
    """
    return _curve(model, x, maps, target, baseline, steps, output, batch_size, seed, progress, "insertion", _inserted)


def _deleted(first: Array, x: Array, baseline: Array) -> Array:
    return array_module(x).where(first, baseline, x)


def _inserted(first: Array, x: Array, baseline: Array) -> Array:
    return array_module(x).where(first, x, baseline)


def _curve(
    model: Module,
    x: Array,
    maps: Array,
    target: Target,
    baseline: float | Array,
    steps: int,
    output: str,
    batch_size: int,
    seed: int,
    progress: Progress,
    name: str,
    changed: Callable[[Array, Array, Array], Array],
) -> Curve:
    check_images(model, x, target)
    steps, seed = count(steps, "steps"), count(seed, "seed", 0)
    (N, _, H, W), ranked = x.shape, arguments.maps(maps)
    if ranked.shape != (N, H, W):
        raise ValueError(f"maps: expected {(N, H, W)}, one map an image, got {ranked.shape}")
    if steps > H * W:
        raise ValueError(f"steps: there are {H * W} pixels, got {steps} steps")
    counts = np.rint(np.linspace(0, H * W, steps + 1)).astype(np.int64)
    rank = to_device(_order(ranked, seed), device_of(x))[:, None]  # (N,1,H,W)
    filler = as_images(baseline, x, "baseline")
    classes, _ = classes_and_scores(model, x, target, output, batch_size)
    scores = np.empty((N, steps + 1))
    for part in batches(N * (steps + 1), batch_size, progress, name):
        with evaluation_mode(model, batch_size), no_grad():
            i, t = np.divmod(np.arange(part.start, part.stop), steps + 1)
            pick = to_device(i, device_of(x))
            first = rank[pick] < to_device(counts[t], device_of(x))[:, None, None, None]
            logits = logits_of(model, changed(first, x[pick], filler[pick]))
            scores[i, t] = to_cpu(score(logits, classes[pick], output).data)
    return Curve(counts / (H * W), scores)


def _order(maps: Array, seed: int) -> Array:
    """Each pixel's place (N,H,W) when the highest come first, equal ones in random order."""
    N, H, W = maps.shape
    tie = np.random.default_rng(seed).random((N, H * W))
    order = np.stack([np.lexsort((t, -m)) for m, t in zip(maps.reshape(N, -1), tie, strict=True)])
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(H * W), order.shape), 1)
    return rank.reshape(N, H, W)
