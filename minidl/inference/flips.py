"""Mirror images: which there are, and the mean answer to an image and to these (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.array import Array, array_module
from minidl.core import Tensor

FLIPS: dict[str, list[tuple[int, ...]]] = {  # which axes of an image (N,C,H,W) are reversed: those of each of its mirror images
    "none": [()],
    "horizontal": [(), (3,)],  # left and right change places
    "vertical": [(), (2,)],
    "both": [(), (3,), (2,), (2, 3)],
}


def mean_over_flips(answer: Callable[[Tensor], Any], x: Array, flips: str) -> Any:
    """y = 1/n sum_F f(F(x)), n = len(FLIPS[flips]), of logits f(x) (N,K): those of x (N,C,H,W) alone where flips is "none".

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks", section 4.1, take
    the mean of the softmax. Here it is that of the logits: it is made of logits as a net's own are, so that loss, temperature,
    operating point and the sigmoid of a single logit mean what they meant. Its softmax is the normalised geometric mean of
    the probabilities.
    """
    if flips == "none":
        return answer(Tensor(x))
    xp, ways = array_module(x), FLIPS[flips]
    total = sum(answer(Tensor(xp.ascontiguousarray(xp.flip(x, axes)))) for axes in ways)
    return total * (1 / len(ways))
