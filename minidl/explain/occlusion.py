"""What is lost when a window of the image is covered."""

from __future__ import annotations

import math

from minidl import ops
from minidl.arguments import Pair, pair, wrong
from minidl.array import Array, array_module
from minidl.core import Tensor, no_grad
from minidl.explain.explanation import Explanation, explainer
from minidl.inference.batches import Progress, gather_runs, runs_in_batches, split_runs
from minidl.inference.evaluation import evaluation_mode, logits_of, predict
from minidl.inference.images import as_images, check_images, number_or_array
from minidl.inference.scores import Output, Target, exact_score, targets
from minidl.inference.sliding import starts
from minidl.nn import Module

FILLS = ("mean", "blur")  # of the image's own


@explainer
def occlusion(
    model: Module,
    x: Array,
    target: Target = None,
    output: Output = "logit",
    window: int | Pair | None = None,
    stride: int | Pair | None = None,
    baseline: float | Array | str = 0.0,
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw_ij = mean over the windows that cover pixel ij of score(x) - score(x with that window filled), (N,1,H,W), and map

    Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2. Positive where the score needs
    what is there.

    Args:
        window: height and width in pixels; an eighth of the image by default, at least 1.
        stride: pixels from one window to the next, half a window by default, at least 1; the last one of each row and column is
            moved in, so that windows cover every pixel. At most `window`.
        baseline: a number or what broadcasts to x, such as (C,1,1). The default 0 is the mean colour of normalised images.
            "mean": the mean of the window itself, in each channel, so that what it covers loses its form and keeps its colour.
            "blur": the image, blurred by a Gaussian whose standard deviation is half the window's height and width.
        target, output, batch_size, progress: as in `saliency`.

    Raises:
        ValueError: a window larger than the image, or a stride larger than the window; the mean of one pixel.
        TypeError, ValueError, MemoryError: as in `saliency`.
    """
    check_images(model, x, target)
    xp, (N, _, H, W) = array_module(x), x.shape
    h, w = (max(1, H // 8), max(1, W // 8)) if window is None else pair(window, "window", 1)
    if h > H or w > W:
        raise ValueError(f"window: {h}x{w} is larger than the images, which are {H}x{W}")
    down, right = (max(1, h // 2), max(1, w // 2)) if stride is None else pair(stride, "stride", 1)
    if down > h or right > w:
        raise ValueError(f"stride: {down}x{right} skips pixels, the window is {h}x{w}")
    if isinstance(baseline, str):
        if baseline not in FILLS:
            wrong(ValueError, "baseline", f"a number, an array that broadcasts to {x.shape}, or one of {FILLS}", baseline)
        if baseline == "mean" and h * w == 1:
            raise ValueError("window: one pixel is its own mean, which takes nothing away; take a larger window")
        local, cover = baseline == "mean", _blurred(x, h, w) if baseline == "blur" else x
    else:
        baseline = number_or_array(baseline, "baseline")
        local, cover = False, as_images(baseline, x, "baseline")
    logits = predict(model, x, batch_size)
    classes = targets(logits, target)
    scores = exact_score(logits, classes, output)

    corners = [(top, left) for top in starts(H, h, down) for left in starts(W, w, right)]
    windows = [(slice(top, top + h), slice(left, left + w)) for top, left in corners]
    lost, count = xp.zeros((N, 1, H, W), x.dtype), xp.zeros((H, W), x.dtype)
    for rows, columns in windows:
        count[rows, columns] += 1
    for runs in runs_in_batches(N, len(windows), batch_size, progress, "occlusion"):
        with evaluation_mode(model, batch_size), no_grad():
            images = gather_runs(x, runs)
            for some, (part, k) in zip(split_runs(images, runs), runs, strict=True):
                rows, columns = windows[k]
                filling = cover[part, :, rows, columns]
                some[:, :, rows, columns] = filling.mean((2, 3), keepdims=True) if local else filling
            drops = gather_runs(scores, runs) - exact_score(logits_of(model, images).data, gather_runs(classes, runs), output)
            for drop, (part, k) in zip(split_runs(drops, runs), runs, strict=True):
                rows, columns = windows[k]
                lost[part, 0, rows, columns] += drop[:, None, None]
    raw = lost / count
    params = {"method": "occlusion", "output": output, "window": (h, w), "stride": (down, right), "baseline": baseline}
    return Explanation(raw[:, 0], raw, classes, scores.astype(x.dtype), params=params)


def _blurred(x: Array, h: int, w: int) -> Array:
    """The image without what is smaller than a window; where that is nearly as large as the image, the bell is cut off."""
    sigma = h / 2, w / 2
    radius = tuple(min(math.ceil(3 * s), size - 1) for s, size in zip(sigma, x.shape[2:], strict=True))
    with no_grad():
        return ops.gaussian_blur(Tensor(x), sigma, (radius[0], radius[1])).data
