"""Do contributions foretell how much the score changes when the image does?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.arguments import count, flag, number
from minidl.array import Array, array_module, device_of, is_array, shape_of, to_cpu, to_device
from minidl.contexts import contained
from minidl.core import no_grad
from minidl.inference.batches import Progress, gather_runs, runs_in_batches, split_runs
from minidl.inference.evaluation import evaluation_mode, logits_of, predict
from minidl.inference.images import as_images, check_images
from minidl.inference.scores import Output, Target, exact_score, targets
from minidl.nn import Module

Perturbation = Callable[[Array, np.random.Generator], Array]  # (C,H,W) -> (C,H,W): what is taken from an image
PERTURBATIONS = ("noise", "square")


@contained
def infidelity(
    model: Module,
    x: Array,
    raw: Array,
    target: Target = None,
    perturbation: str | Perturbation = "noise",
    noise: float = 0.2,
    baseline: float | Array = 0.0,
    normalize: bool = False,
    samples: int = 100,
    output: Output = "logit",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Array:
    """y = mean over I of (<I, raw> - (score_c(x) - score_c(x - I)))^2, (N,) float64 on the CPU: 0 for what foretells all

    Yeh, Hsieh, Suggala, Inouye and Ravikumar 2019, "On the (in)fidelity and sensitivity of explanations", definition 2.1. The
    gradient of a linear model has 0. What multiplies with the image, as integrated gradients, tells of I = x - baseline alone:
    divide it by x - baseline first. The class is that of x.

    Args:
        x: images (N,C,H,W) as in training.
        raw: (N,C,H,W), the change of the score for one unit of x, such as `Explanation.raw` of gradients; (N,1,H,W) or (N,H,W)
            count for every channel.
        perturbation: what I is: "noise", N(0, sigma^2) everywhere, sigma = noise * (max x - min x) of each image; "square",
            x - baseline in a square anywhere, of a side from 1 to half of the image's, and 0 elsewhere; or a function of
            an image (C,H,W) and a generator, which gives I (C,H,W).
        noise: the share of the range. baseline: what is in the square, a number or what broadcasts to x.
        normalize: multiply raw by the factor that makes y least, mean(d <I, raw>) / mean(<I, raw>^2) for changes d, so that
            maps of all scales compare, as in the authors' code. y is then at most mean d^2, that of a map of 0.
        samples: I for each image. All images share the draws. seed: the same numbers on every device and for every batch_size.
        target: the class c, one for all or one for each; None: the one that the model predicts for x.
        output: the score, as in `explain.saliency`.
        batch_size: images in memory at a time.
        progress: False, True (a bar), or a function of (done, total).

    Raises TypeError and ValueError for an argument that cannot be, MemoryError where a batch does not fit into memory.
    """
    check_images(model, x, target)
    samples, seed, normalize = count(samples, "samples"), count(seed, "seed", 0), flag(normalize, "normalize")
    noise, start = number(noise, "noise", "(0, inf)"), as_images(baseline, x, "baseline")
    if not callable(perturbation) and perturbation not in PERTURBATIONS:
        raise ValueError(f"perturbation: expected one of {PERTURBATIONS}, or a function of an image, got {perturbation!r}")
    contributions = _contributions(raw, x)
    xp, (N, C, H, W) = array_module(x), x.shape
    sigma = noise * (x.max((1, 2, 3), keepdims=True) - x.min((1, 2, 3), keepdims=True))

    def taken(part: slice, k: int) -> Array:
        rng = np.random.default_rng((seed, k))
        if callable(perturbation):
            return xp.stack([_given(perturbation, image, np.random.default_rng((seed, k))) for image in x[part]])
        if perturbation == "noise":
            return sigma[part] * xp.asarray(rng.standard_normal((C, H, W)), x.dtype)
        side = int(rng.integers(1, max(1, min(H, W) // 2) + 1))
        top, left = int(rng.integers(0, H - side + 1)), int(rng.integers(0, W - side + 1))
        change = xp.zeros_like(x[part])
        square = slice(top, top + side), slice(left, left + side)
        change[:, :, *square] = (x[part] - start[part])[:, :, *square]
        return change

    logits = predict(model, x, batch_size)
    classes = targets(logits, target)
    scores = exact_score(logits, classes, output)
    foretold, drops, changed = np.empty((N, samples)), np.empty((N, samples)), np.zeros(N, bool)
    for runs in runs_in_batches(N, samples, batch_size, progress, "infidelity"):
        change = xp.concatenate([taken(part, k) for part, k in runs])
        with evaluation_mode(model, batch_size), no_grad():
            logits = logits_of(model, gather_runs(x, runs) - change).data
            lost = gather_runs(scores, runs) - exact_score(logits, gather_runs(classes, runs), output)
        told = xp.multiply(gather_runs(contributions, runs), change, dtype="float64").sum((1, 2, 3))
        found = (split_runs(to_cpu(a), runs) for a in (told, lost, (change != 0).any((1, 2, 3))))
        for (part, k), one, other, any_change in zip(runs, *found, strict=True):
            foretold[part, k], drops[part, k] = one, other
            changed[part] |= any_change
    if still := np.flatnonzero(~changed).tolist():
        raise ValueError(f"perturbation: it changes nothing in the images {still[:10]}, of which every map would foretell all")
    if normalize:
        size = (foretold**2).mean(1)
        factor = np.divide((foretold * drops).mean(1), size, out=np.zeros(N), where=size > 0)
        foretold *= factor[:, None]
    mean: Array = ((foretold - drops) ** 2).mean(1)
    return mean


def _contributions(raw: Array, x: Array) -> Array:
    """(N,C,H,W), where x is"""
    N, C, H, W = x.shape
    shape = shape_of(raw)
    if not is_array(raw) or raw.dtype.kind not in "fiub" or shape not in ((N, C, H, W), (N, 1, H, W), (N, H, W)):
        got = f"{raw.dtype} of shape {shape}" if is_array(raw) else type(raw).__name__
        raise ValueError(f"raw: expected an array of numbers of {(N, C, H, W)}, {(N, 1, H, W)} or {(N, H, W)}, got {got}")
    raw = to_device(raw.reshape(N, -1, H, W), device_of(x))
    if not bool(array_module(raw).isfinite(raw).all()):
        raise ValueError("raw: holds NaN or infinity")
    return array_module(x).broadcast_to(raw, x.shape)


def _given(perturbation: Perturbation, image: Array, rng: np.random.Generator) -> Array:
    given = perturbation(image.copy(), rng)
    if not is_array(given) or given.shape != image.shape:
        got = given.shape if is_array(given) else type(given).__name__
        raise ValueError(f"perturbation: expected it to give an array {image.shape}, what is taken from the image, got {got}")
    given = to_device(given, device_of(image)).astype(image.dtype)
    if not bool(array_module(image).isfinite(given).all()):
        raise ValueError("perturbation: gave NaN or infinity")
    return given
