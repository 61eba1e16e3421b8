"""Which region of a given area, kept while all else is blurred, keeps the class? A mask, learned by gradient ascent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minidl import ops
from minidl.arguments import count, flag, number, numbers, wrong
from minidl.array import Array, array_like, array_module
from minidl.core import Parameter, Tensor, no_grad
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.meaningful import blurred, joined
from minidl.inference.batches import Progress, batches, reporting
from minidl.inference.evaluation import classes_and_scores, evaluation_mode, logits_of, predict
from minidl.inference.images import check_images
from minidl.inference.scores import Output, Target, log_probability, score
from minidl.nn import Module
from minidl.optim import SGD

TEMPERATURE = 1 / 20
AREA_WEIGHT, AREA_GROWTH = 300.0, 1.0035  # of the area loss, and by how much that grows at each iteration
MOMENTUM = 0.9


@explainer
def extremal_perturbation(
    model: Module,
    x: Array,
    target: Target = None,
    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2),
    enough: float = 0.9,
    step: int | None = None,
    sigma: float | None = None,
    levels: int = 8,
    blur: float = 20.0,
    flip: bool = False,
    lr: float = 0.01,
    iterations: int = 800,
    output: Output = "logit",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """The region of a given area that, alone kept sharp, keeps the score highest: for every image and area a a mask m, with

        loss(m) = -S_c(Phi) + 300 1.0035^t mean((sort(M) - r_a)^2),    Phi = pyramid(x)[M],

    M the mask at the size of the image, **1: kept, 0: blurred**, r_a a vector of zeros and then ones, a of them ones, and t
    the iteration. M is a smooth maximum over the cells of m, each as wide as `sigma`: M cannot be smaller than one such spot,
    nor finer. Where M lies between 0 and 1 a pixel is blurred less, interpolated in a pyramid of ever stronger blurs. Gradient
    descent with momentum 0.9, m clipped to [0, 1] after each step, from m = 1.

    Of several areas the smallest is chosen whose image Phi keeps `enough` of the class probability p_c(x), or, where none
    does, the one that keeps most of it. p_c is that of the softmax, or of the sigmoid where that is the score or there is one
    logit. A score of one's own has no 0: of it counts the share of what the sharp image has beyond the blurred one.

    Fong, Patrick and Vedaldi 2019, "Understanding deep networks via extremal perturbations and smooth masks", section 3, with
    the kernel and the averaged momentum v <- 0.9 v + 0.1 g of the authors' code. Nothing in here is random.

    Returns an Explanation with
        map: (N,H,W), the chosen M: **1 is what suffices**, kept to keep the class.
        raw: (N,A,H,W), M of each area. `keep(x, map, ...)` makes the image without what the map hides.
        score: (N,), that of the whole image.
        history: of each iteration the parts of the loss, "score" and "area", (N,A) each.
        params: besides the settings "chosen", the area of each image, and "kept", (N,A), p_c(Phi) / p_c(x) at the end, from
            their logarithms: the ratio is a number, at most about the largest float, also where p_c(x) itself rounds to 0.

    Args:
        target: the class c, one for all or one for each image; None: the one that the model predicts.
        areas: shares of the image, each more than 0 and less than 1.
        enough: the share of p_c(x) that the chosen image keeps.
        step: pixels between the cells of m; None: 1/32 of the shorter side, rounded: 7 for 224 pixels, as published.
        sigma: width of a spot in pixels; None: 3 steps, 21 for 224 pixels, as published.
        levels: of the pyramid, from the blurred image to the sharp one; at least 2.
        blur: standard deviation in pixels of its strongest blur. It is 20 at every size: what is blurred away must be gone.
        flip: mirror every second image left to right, as published; off here, since left and right may matter.
        lr: of gradient descent.
        iterations: steps.
        output: the score, as for `saliency`; the authors take "logit".
        batch_size: masks in memory at a time; every image has as many as there are areas.
        progress: False, True (a bar), or a function of (done, total) iterations of single masks.

    Ctrl-C leaves the model as it was and returns nothing: a mask that is half learned is no explanation.

    Raises:
        TypeError, ValueError: an argument that cannot be, named with what came and what was expected; so is a class whose
            probability is exactly 0, by a logit of -inf, of which no share can be kept.
        MemoryError: as in `saliency`.
    """
    check_images(model, x, target)
    H, W = x.shape[2:]
    areas, enough = numbers(areas, "areas", "(0, 1)"), number(enough, "enough", "(0, 1]")
    if not areas:
        wrong(ValueError, "areas", "one or more numbers in (0, 1)", areas)
    step = max(1, round(min(H, W) / 32)) if step is None else count(step, "step")
    sigma = 3.0 * step if sigma is None else number(sigma, "sigma", "(0, inf)")
    levels, iterations, flip = count(levels, "levels", 2), count(iterations, "iterations"), flag(flip, "flip")
    blur, lr = number(blur, "blur", "(0, inf)"), number(lr, "lr", "[0, inf)")
    kernel = spots(step, sigma)
    xp, A = array_module(x), len(areas)
    classes, scores = classes_and_scores(model, x, target, output, batch_size)
    own = callable(output)
    judge = score if own else log_probability  # p itself may be too small for a float
    whole = judge(Tensor(predict(model, x, batch_size)), classes, output).data
    if bad := xp.nonzero(~xp.isfinite(whole))[0].tolist():
        raise ValueError(f"target: expected classes of a probability above 0, got 0 (or NaN) for the images {bad[:10]}")
    # every image once for each area: N A problems that know nothing of each other
    image, area = xp.repeat(xp.arange(len(x)), A), xp.asarray(np.tile(np.asarray(areas), len(x)))
    masks, kept, histories = [], [], []
    with reporting(len(image) * iterations, progress, "extremal perturbation") as advance:
        for part in batches(len(image), batch_size):
            c, blurs = classes[image[part]], pyramid(x[image[part]], levels, blur)
            mask = Parameter(xp.ones((len(c), 1, -(-H // step), -(-W // step)), x.dtype))
            optimiser, history = SGD([mask], lr * (1 - MOMENTUM), MOMENTUM), []
            for t in range(iterations):
                optimiser.zero_grad()
                with evaluation_mode(model, batch_size):
                    M = full_size(mask, kernel, (H, W))
                    phi = interpolated(blurs, M)
                    reward = score(logits_of(model, ops.flip(phi, 3) if flip and t % 2 == 0 else phi), c, output)
                    off = area_loss(M, area[part])
                    ops.sum(AREA_WEIGHT * AREA_GROWTH**t * off - reward).backward()
                optimiser.step()
                mask.data = xp.clip(mask.data, 0, 1)
                history.append({"score": reward.data, "area": off.data})
                advance(len(mask))
            with evaluation_mode(model, batch_size), no_grad():
                M = full_size(mask, kernel, (H, W))
                alone, before = judge(logits_of(model, interpolated(blurs, M)), c, output).data, whole[image[part]]
                if own:
                    kept.append(share_of_gain(alone, before, score(logits_of(model, blurs[:, 0]), c, output).data))
                else:
                    kept.append(xp.exp(xp.minimum(alone - before, math.log(np.finfo(x.dtype).max) - 1)))  # finite
            masks.append(M.data[:, 0])
            histories.append(history)
    raw, share = xp.concatenate(masks).reshape(-1, A, H, W), xp.concatenate(kept).reshape(-1, A)
    best = choose(share, areas, enough)
    params = {"method": "extremal_perturbation", "areas": areas, "enough": enough, "step": step, "sigma": sigma,
              "levels": levels, "blur": blur, "flip": flip, "lr": lr, "iterations": iterations, "output": output,
              "chosen": xp.asarray(areas)[best], "kept": share}  # fmt: skip
    return Explanation(
        raw[xp.arange(len(x)), best],
        raw,
        classes,
        scores,
        history=[{name: a.reshape(-1, A) for name, a in entry.items()} for entry in joined(histories)],
        params=params,
    )


def keep(x: Array, map: Array, levels: int = 8, blur: float = 20.0) -> Array:
    """x (N,C,H,W), sharp where map (N,H,W) is 1, blurred where it is 0, and blurred less in between.

    levels, blur: of the pyramid, as in `extremal_perturbation`. Raises ValueError for a map of another shape, TypeError or
    ValueError where levels is no integer of at least 2, or blur no number above 0.
    """
    if map.shape != (len(x), *x.shape[2:]):
        raise ValueError(f"map: expected (N,H,W) = {(len(x), *x.shape[2:])} for x of {x.shape}, got {map.shape}")
    levels, blur = count(levels, "levels", 2), number(blur, "blur", "(0, inf)")
    return interpolated(pyramid(x, levels, blur), Tensor(array_like(map, x)[:, None])).data


def pyramid(x: Array, levels: int, blur: float) -> Array:
    """x (N,C,H,W) -> (N,L,C,H,W), level l blurred by sigma_l = blur (1 - l / (L - 1)): the last one is x itself."""
    sigmas = [blur * (1 - level / (levels - 1)) for level in range(levels - 1)]
    return array_module(x).stack([*(blurred(Tensor(x), s).data for s in sigmas), x], 1)


def interpolated(blurs: Array, M: Tensor) -> Tensor:
    """Phi = (1 - f) y_k + f y_{k+1}, k + f = M (L - 1): levels y (N,L,C,H,W), M (N,1,H,W) in [0, 1] -> (N,C,H,W)."""
    xp, last = array_module(blurs), blurs.shape[1] - 1
    k = xp.clip(xp.floor(M.data * last), 0, last - 1).astype("int64")  # (N,1,H,W)
    low, high = (xp.take_along_axis(blurs, level[:, None], 1)[:, 0] for level in (k, k + 1))
    phi: Tensor = Tensor(low) + Tensor(high - low) * (last * M - Tensor(k.astype(blurs.dtype)))
    return phi


def spots(step: int, sigma: float) -> Array:
    """kernel[a,b,u,v] = exp(-2 max(d / sigma - 1/2, 0)^2), d the distance of pixel (u, v) to the centre of cell (a, b).

    It reaches 1 + ceil(sigma / step) cells to each side, as in the authors' code.
    """
    radius = 1 + math.ceil(sigma / step)
    away = np.arange(-radius, radius + 1)[:, None] * step + (step - 1) / 2 - np.arange(step)  # (2r+1,s), along one axis
    d = np.hypot(away[:, None, :, None], away[None, :, None, :])
    kernel: Array = np.exp(-2 * np.maximum(d / sigma - 0.5, 0) ** 2)
    return kernel


def full_size(mask: Tensor, kernel: Array, size: tuple[int, int]) -> Tensor:
    """m (N,1,h,w) -> M (N,1,*size)."""
    M = ops.smooth_max_convolution(mask, kernel, TEMPERATURE)
    return M[:, :, : size[0], : size[1]]


def area_loss(M: Tensor, area: Array) -> Tensor:
    """mean((sort(M) - r_a)^2) of M (N,1,H,W), area (N,): (N,).

    Sorting both M and r_a alike changes nothing, so r_a is put into the order of M: the largest a H W pixels shall be 1, the
    others 0.
    """
    xp, pixels = array_module(area), M.size // len(area)
    flat = ops.reshape(M, (len(area), pixels))
    rank = flat.data.argsort(1, kind="stable").argsort(1)  # (N,HW), of each pixel; CuPy sorts so as well
    goal = (rank >= xp.floor(pixels * (1 - area))[:, None]).astype(M.dtype)
    return ops.mean((flat - Tensor(goal)) ** 2, axis=1)


def share_of_gain(alone: Array, whole: Array, blurred: Array) -> Array:
    """(S(Phi) - S(blurred x)) / (S(x) - S(blurred x)), (N,); where there is no gain, 1 if S(Phi) is as high as S(x), else 0."""
    xp, gain = array_module(whole), whole - blurred
    share: Array = xp.where(gain > 0, (alone - blurred) / xp.where(gain > 0, gain, 1), alone >= whole)
    return share.astype(whole.dtype)


def choose(kept: Array, areas: Sequence[float], enough: float) -> Array:
    """For each image the index of the smallest area that keeps `enough`, else of that which keeps most; kept (N,A): (N,)."""
    xp = array_module(kept)
    size = xp.where(kept >= enough, xp.asarray(areas), np.inf)  # (N,A)
    return xp.where((kept >= enough).any(1), size.argmin(1), kept.argmax(1))
