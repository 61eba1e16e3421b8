"""What must be deleted so that the model no longer sees its class? A mask, learned by gradient descent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minidl import ops
from minidl.arguments import count, number, one_of
from minidl.array import Array, array_like, array_module
from minidl.contexts import contained
from minidl.core import Parameter, Tensor, no_grad
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress, batches, reporting
from minidl.inference.evaluation import classes_and_scores, evaluation_mode, logits_of
from minidl.inference.images import as_images, check_images, number_or_array
from minidl.inference.scores import Target, score
from minidl.nn import Module
from minidl.optim import AdamW

DELETIONS = ("blur", "constant", "noise")
CELLS = 28 * 28  # of the mask for which the weights are published
SETTINGS = {  # the two that are published: to see what the model used, and to find the object
    "evidence": {"lambda1": 1e-4, "lambda2": 1e-2, "beta": 3.0},
    "localisation": {"lambda1": 1e-3, "lambda2": 1e-2, "beta": 2.0},
}


@dataclass(frozen=True)
class Loss:
    """The three parts of the loss of each image, all (N,): lambda1 sum |1 - m|, the score of Phi, lambda2 TV(m)."""

    l1: Tensor
    score: Tensor
    tv: Tensor

    def total(self) -> Tensor:
        return self.l1 + self.score + self.tv


@contained
def meaningful_perturbation(
    model: Module,
    x: Array,
    target: Target = None,
    deletion: str = "blur",
    setting: str = "evidence",
    lambda1: float | None = None,
    lambda2: float | None = None,
    beta: float | None = None,
    blur: float = 10.0,
    constant: float | Array | None = None,
    stride: int | None = None,
    sigma: float | None = None,
    jitter: int | None = None,
    lr: float = 0.1,
    iterations: int = 300,
    output: str = "prob",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Explanation:
    """The smallest smooth region whose deletion makes the class disappear: each image learns a mask m of its own, with

        loss(m) = lambda1 sum |1 - m| + p_c(Phi) + lambda2 sum (dx^2 + dy^2)^(beta/2),    Phi = M x + (1 - M) replacement,

    M the mask at the size of the image, m at a lower one, both in [0, 1], **1: kept, 0: deleted**. The sums run over the
    cells of m, and dx, dy are the differences of neighbouring cells. M is m interpolated and blurred, and the gradient goes
    back through all of that. Adam minimises, m is clipped to [0, 1] after each step, and each step sees the image shifted by
    a few pixels. m begins as the smallest centred disc whose deletion takes p_c below 1% of p_c(x), or, where no disc does, as
    the one that takes it lowest.

    Fong and Vedaldi 2017, "Interpretable explanations of black boxes by meaningful perturbation", sections 4.2 and 4.3.

    Returns an Explanation with
        map: (N,H,W), 1 - M, so that **1 is what the model needs**: deleted to make the class disappear.
        raw: (N,1,h,w), m itself, 1: kept.
        score: (N,), that of the whole image. `delete(x, map, ...)` makes the image without what the map shows.
        history: of each iteration the parts of the loss, "l1", "score" (of the shifted image) and "tv", (N,) each.

    Args:
        target: the class c, one for all or one for each image; None: the one that the model predicts.
        deletion: what replaces a pixel: "blur", the image blurred; "constant", a colour; "noise", noise of the image's own
            mean and standard deviation, channel by channel, redrawn at each step.
        setting: the weights of the loss, "evidence" (1e-4, 1e-2, beta 3) or "localisation" (1e-3, 1e-2, beta 2, with which the
            paper finds objects). They are published for 28x28 cells. Of h x w cells each costs lambda1 784 / (h w), so that
            the same share of the image has the same price.
        lambda1, lambda2, beta: each replaces that of the setting, lambda1 as it is; beta is at least 2.
        blur: standard deviation in pixels of the blur that deletes. It is 10 at every size: what is blurred away must be gone.
        constant: the colour, in the units of x, one number or (C,1,1); None: the mean of each image.
        stride: pixels a cell of m. None: 8, as published for 224 pixels, or less where the shorter side would have fewer than
            16 such cells: 4 for 64 pixels and 2 for 32.
        sigma: standard deviation in pixels of the blur that smooths M; None: 5/8 of the stride, as published.
        jitter: the image is shifted by one of so many pixels up or down and left or right, around 0: 4 are -1, 0, 1, 2, and
            1 is no shift. None: half the stride, 4 for 224 pixels, as published.
        output: the score, as for `saliency`; the paper takes "prob".
        batch_size: images in memory at a time. They do not influence each other; all see the same shifts and the same noise.
        seed: of the shifts and the noise.
        progress: False, True (a bar), or a function of (done, total) iterations of single images.

    Ctrl-C leaves the model as it was and returns nothing: a mask that is half learned is no explanation.

    Raises:
        TypeError, ValueError: an argument that cannot be, named with what came and what was expected.
        MemoryError: as in `saliency`.
    """
    check_images(model, x, target)
    H, W = x.shape[2:]
    stride = max(1, min(8, min(H, W) // 16)) if stride is None else count(stride, "stride")
    sigma = 0.625 * stride if sigma is None else number(sigma, "sigma", "(0, inf)")
    jitter = max(1, stride // 2) if jitter is None else count(jitter, "jitter")
    blur, lr = number(blur, "blur", "(0, inf)"), number(lr, "lr", "[0, inf)")
    iterations, seed = count(iterations, "iterations"), count(seed, "seed", 0)
    constant = None if constant is None else number_or_array(constant, "constant")
    if min(H, W) <= stride:
        raise ValueError(f"stride: {stride} leaves images of {H}x{W} a mask of less than 2x2 cells")
    weights = weights_of(setting, lambda1, lambda2, beta, cells=-(-H // stride) * -(-W // stride))
    classes, scores = classes_and_scores(model, x, target, output, batch_size)
    xp, masks, histories = array_module(x), [], []
    with reporting(len(x) * iterations, progress, "meaningful perturbation") as advance:
        for part in batches(len(x), batch_size):
            images = Images(x[part], deletion, blur, constant, jitter, seed)
            with evaluation_mode(model, batch_size), no_grad():
                mask = Parameter(initial_mask(model, images, classes[part], stride, sigma))
            optimiser, history = AdamW([mask], lr, weight_decay=0.0), []
            for shown, replaced in images.shifted(iterations):
                optimiser.zero_grad()
                with evaluation_mode(model, batch_size):
                    loss = loss_of(model, mask, shown, replaced, classes[part], sigma, output, **weights)
                    ops.sum(loss.total()).backward()
                optimiser.step()
                mask.data = xp.clip(mask.data, 0, 1)
                history.append({"l1": loss.l1.data, "score": loss.score.data, "tv": loss.tv.data})
                advance(len(mask))
            masks.append(mask.data)
            histories.append(history)
    raw = xp.concatenate(masks)
    params = {"method": "meaningful_perturbation", "deletion": deletion, "setting": setting, **weights, "blur": blur,
              "constant": constant, "stride": stride, "sigma": sigma, "jitter": jitter, "lr": lr, "iterations": iterations,
              "output": output, "seed": seed}  # fmt: skip
    M = full_size(Tensor(raw), (H, W), sigma).data[:, 0]
    deleted = xp.clip(1 - M, 0, 1)  # which it is, but for rounding
    return Explanation(deleted, raw, classes, scores, history=joined(histories), params=params)


def delete(
    x: Array,
    map: Array,
    deletion: str = "blur",
    blur: float = 10.0,
    constant: float | Array | None = None,
    seed: int = 0,
) -> Array:
    """map r + (1 - map) x: the images x (N,C,H,W) with the pixels replaced where map (N,H,W) is 1, and mixed in between.

    deletion, blur, constant, seed: what r is, as in `meaningful_perturbation`. Raises ValueError for a map of another shape,
    TypeError or ValueError for settings that cannot be.
    """
    if map.shape != (len(x), *x.shape[2:]):
        raise ValueError(f"map: expected (N,H,W) = {(len(x), *x.shape[2:])} for x of {x.shape}, got {map.shape}")
    constant = None if constant is None else number_or_array(constant, "constant")
    _, replaced = Images(x, deletion, blur, constant, 1, seed).unshifted()
    share = array_like(map, x)[:, None]
    return share * replaced + (1 - share) * x


def loss_of(
    model: Module,
    mask: Tensor,
    x: Array,
    replaced: Array,
    target: Array,
    sigma: float,
    output: str,
    lambda1: float,
    lambda2: float,
    beta: float,
) -> Loss:
    """The loss of masks (N,1,h,w) on images x and their replacements (N,C,H,W), with a gradient in the mask."""
    M = full_size(mask, x.shape[2:], sigma)  # (N,1,H,W)
    phi = Tensor(x - replaced) * M + Tensor(replaced)  # (N,C,H,W)
    return Loss(
        lambda1 * ops.sum(1 - mask, axis=(1, 2, 3)),  # |1 - m|, as m <= 1, and with its slope at m = 1, where |.| has none
        score(logits_of(model, phi), target, output),
        lambda2 * total_variation(mask, beta),
    )


def total_variation(mask: Tensor, beta: float) -> Tensor:
    """sum_ij ((m[i+1,j] - m[i,j])^2 + (m[i,j+1] - m[i,j])^2)^(beta/2) of (N,1,h,w): (N,); 0 beyond the border."""
    dy = mask[:, :, 1:] - mask[:, :, :-1]
    dx = mask[:, :, :, 1:] - mask[:, :, :, :-1]
    dy, dx = ops.pad(dy, ((0, 0), (0, 0), (0, 1), (0, 0))), ops.pad(dx, ((0, 0), (0, 0), (0, 0), (0, 1)))
    return ops.sum((dy**2 + dx**2) ** (beta / 2), axis=(1, 2, 3))


def full_size(mask: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """m (N,1,h,w) -> M (N,1,*size): interpolated, then blurred."""
    return blurred(ops.resize(mask, size), sigma)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur that reaches 3 sigma, or as far as the image does."""
    radius = math.ceil(3 * sigma)
    return ops.gaussian_blur(x, sigma, (min(radius, x.shape[2] - 1), min(radius, x.shape[3] - 1)))


class Images:
    """One batch of images x (N,C,H,W) and what replaces their pixels, together shifted a little at each step."""

    def __init__(self, x: Array, deletion: str, blur: float, constant: float | Array | None, jitter: int, seed: int) -> None:
        one_of(deletion, "deletion", DELETIONS)
        xp, blur, seed = array_module(x), number(blur, "blur", "(0, inf)"), count(seed, "seed", 0)
        self.size, self.jitter, self.before, self.rng = x.shape[2:], jitter, jitter // 2, np.random.default_rng(seed)
        self.mean, self.std = (f((2, 3), keepdims=True) for f in (x.mean, x.std))  # (N,C,1,1)
        border = (self.before, jitter - 1 - self.before)
        self.x = xp.pad(x, ((0, 0), (0, 0), border, border), mode="edge")
        if deletion == "blur":
            self.replaced: Array | None = blurred(Tensor(self.x), blur).data
        elif deletion == "constant":
            self.replaced = as_images(self.mean if constant is None else constant, self.x, "constant")
        else:
            self.replaced = None

    def at(self, top: int, left: int) -> tuple[Array, Array]:
        """The images and what replaces them, in the window that begins there, (N,C,H,W) both."""
        H, W = self.size
        window = (slice(None), slice(None), slice(top, top + H), slice(left, left + W))
        if self.replaced is not None:
            return self.x[window], self.replaced[window]
        noise = self.rng.standard_normal((self.x.shape[1], H, W))
        return self.x[window], self.mean + self.std * array_module(self.x).asarray(noise, self.x.dtype)

    def unshifted(self) -> tuple[Array, Array]:
        return self.at(self.before, self.before)

    def shifted(self, n: int) -> Iterator[tuple[Array, Array]]:
        """n times, each time by another random shift."""
        for top, left in self.rng.integers(0, self.jitter, (n, 2)):
            yield self.at(int(top), int(left))


def initial_mask(model: Module, images: Images, target: Array, stride: int, sigma: float) -> Array:
    """The masks (N,1,h,w) to begin with: a centred disc is deleted; inside `no_grad`."""
    x, _ = images.unshifted()
    xp, (N, _, H, W) = array_module(x), x.shape
    h, w = -(-H // stride), -(-W // stride)
    y, z = np.arange(h)[:, None] - (h - 1) / 2, np.arange(w) - (w - 1) / 2
    distance = np.hypot(y, z)  # (h,w), in cells, from the centre
    enough = math.log(0.01) + score(logits_of(model, x), target, "logprob").data  # p_c itself may be too small for a float
    mask, lowest = xp.ones((N, 1, h, w), x.dtype), xp.full(N, np.inf, x.dtype)
    for radius in range(1, math.ceil(float(distance.max())) + 1):
        x, replaced = images.unshifted()  # new noise each time
        disc = xp.broadcast_to(xp.asarray(distance > radius, x.dtype), mask.shape)
        M = full_size(Tensor(disc), (H, W), sigma).data
        log_p = score(logits_of(model, M * x + (1 - M) * replaced), target, "logprob").data
        better = (log_p < lowest) & (lowest >= enough)  # a disc that is large enough stays
        mask, lowest = xp.where(better[:, None, None, None], disc, mask), xp.where(better, log_p, lowest)
    return mask


def joined(histories: list[list[dict[str, Array]]]) -> list[dict[str, Array]]:
    """The histories of several batches as one: at each iteration the numbers of all their images, (N,)."""
    return [
        {name: array_module(first).concatenate([entry[name] for entry in entries]) for name, first in entries[0].items()}
        for entries in zip(*histories, strict=True)
    ]


def weights_of(setting: str, lambda1: float | None, lambda2: float | None, beta: float | None, cells: int) -> dict[str, float]:
    """The weights of the loss for a mask of so many cells."""
    published = SETTINGS[one_of(setting, "setting", SETTINGS)]
    weights = {
        "lambda1": published["lambda1"] * (CELLS / cells) if lambda1 is None else lambda1,
        "lambda2": published["lambda2"] if lambda2 is None else lambda2,
        "beta": published["beta"] if beta is None else beta,
    }
    least = {"lambda1": 0, "lambda2": 0, "beta": 2}  # less than 2 has no gradient where m is flat
    return {name: number(weight, name, f"[{least[name]}, inf)") for name, weight in weights.items()}
