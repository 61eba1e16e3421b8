"""The number that is explained: one score an image, read off the logits of a model.

logit      S_c
prob       p_c = exp(S_c) / sum_k exp(S_k)
logprob    log p_c
margin     S_c - max_{k != c} S_k
"""

from __future__ import annotations

import numpy as np

from minidl import ops
from minidl.array import Array, array_like, array_module
from minidl.core import Tensor

Target = int | Array | None  # one class for all images, one for each (N,), or None: the class that the model predicts

OUTPUTS = ("logit", "prob", "logprob", "margin")


def score(logits: Tensor, target: Array, output: str = "logit") -> Tensor:
    """The scores (N,) of the classes `target` (N,) under logits (N,K). Raises ValueError for an unknown `output`."""
    picked = array_module(logits.data).arange(len(target)), target
    if output == "logit":
        return logits[picked]
    if output == "logprob":
        return ops.log_softmax(logits)[picked]
    if output == "prob":
        return ops.exp(ops.log_softmax(logits)[picked])
    if output == "margin":
        return logits[picked] - logits[picked[0], runner_up(logits.data, target)]
    raise ValueError(f"output: expected one of {OUTPUTS}, got {output!r}")


def exact_score(logits: Array, target: Array, output: str) -> Array:
    """`score` in float64: those of a sure model differ by less than float32 can tell, though its logits do not."""
    return score(Tensor(logits.astype("float64")), target, output).data


def runner_up(logits: Array, target: Array) -> Array:
    """The best class (N,) besides `target`, of logits (N,K), K > 1."""
    xp = array_module(logits)
    if logits.shape[1] < 2:
        raise ValueError(f"output: 'margin' needs a second class, got logits of shape {logits.shape}")
    others = logits.copy()
    others[xp.arange(len(target)), target] = -np.inf
    return others.argmax(1)


def targets(logits: Array, target: Target, name: str = "target") -> Array:
    """One class an image (N,) int64: the given ones, one for all, or with None the largest of the logits (N,K).

    Raises TypeError where they are no integers, ValueError where they are not N of the classes 0 to K-1; `name` is what the
    error calls them.
    """
    xp, (N, K) = array_module(logits), logits.shape
    if target is None:
        return logits.argmax(1).astype("int64")
    classes = array_like(target, logits)
    if classes.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a class as an integer, or an array of {N} of them, got {target!r}")
    if classes.shape not in ((), (N,)):
        raise ValueError(f"{name}: expected one class, or one for each of the {N} images, got shape {classes.shape}")
    if not bool(((classes >= 0) & (classes < K)).all()):
        raise ValueError(f"{name}: expected one of the classes 0 to {K - 1}, got {target!r}")
    return xp.broadcast_to(classes, (N,)).astype("int64")
