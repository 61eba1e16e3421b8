"""The number that is explained: one score an image, read off the logits of a model.

logit      S_c
prob       p_c = exp(S_c) / sum_k exp(S_k)
logprob    log p_c
margin     S_c - max_{k != c} S_k
sigmoid    p_c = 1 / (1 + exp(-S_c)), of a net with one logit, or with several that do not compete;  dp_c = p_c (1 - p_c) dS_c

or a function of one's own, f(logits (N,K), classes (N,)) -> (N,), in minidl's ops: the value of a regression, the difference of
two classes, the distance from the logits of another image. The score of an image is that of its own row.

A net with one logit z has one class, 0, of which z speaks. It answers yes where z > 0, and that is all its softmax cannot say:
"prob", "logprob" and "margin" compare classes and are errors there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl import ops
from minidl.array import Array, array_like, array_module
from minidl.contexts import Block, Setting
from minidl.core import Tensor, no_grad, recording

Target = int | Array | None  # one class for all images, one for each (N,), or None: the class that the model predicts
Output = str | Callable[[Tensor, Array], Tensor]  # one of OUTPUTS, or f(logits, classes) -> (N,)

OUTPUTS = ("logit", "prob", "logprob", "margin", "sigmoid")
COMPARE = ("prob", "logprob", "margin")  # classes with each other

_asked: Setting[list[int] | None] = Setting("logits that were asked", None)


def score(logits: Tensor, target: Array, output: Output = "logit") -> Tensor:
    """The scores (N,) of the classes `target` (N,) under logits (N,K).

    Raises ValueError for an unknown `output`, for one that compares classes where there is one logit, and for a function of
    one's own whose scores are not finite, not one for each image, or without a gradient; TypeError where they are no Tensor.
    """
    if not isinstance(output, str):
        return _own_score(logits, target, output)
    if output in COMPARE and logits.shape[1] == 1:
        raise ValueError(f"output: {output!r} compares classes, and the model has one logit; write output='sigmoid'")
    picked = array_module(logits.data).arange(len(target)), target
    if output == "logit":
        return logits[picked]
    if output == "logprob":
        return ops.log_softmax(logits)[picked]
    if output == "prob":
        return ops.exp(ops.log_softmax(logits)[picked])
    if output == "margin":
        return logits[picked] - logits[picked[0], runner_up(logits.data, target)]
    if output == "sigmoid":
        return ops.sigmoid(logits[picked])
    return _unknown(output)


def _unknown(output: object) -> Tensor:
    raise ValueError(f"output: expected one of {OUTPUTS} or a function f(logits, classes) -> (N,), got {output!r}")


def _own_score(logits: Tensor, target: Array, f: Callable[[Tensor, Array], Tensor]) -> Tensor:
    if not callable(f):
        return _unknown(f)
    N, name = len(target), f"output: the function {name_of(f)!r}"
    try:
        scores = f(logits, target)
    except Exception as error:
        error.add_note(f"{name} was given logits {logits.shape} {logits.dtype} and classes {target.shape}")
        raise
    if not isinstance(scores, Tensor):
        raise TypeError(f"{name} returned {type(scores).__name__}, expected a Tensor of {N} scores, computed by minidl's ops")
    if scores.shape != (N,):
        raise ValueError(f"{name} returned shape {scores.shape} for logits {logits.shape}, expected one score an image, {(N,)}")
    xp = array_module(logits.data)
    if not bool(xp.isfinite(scores.data).all()):
        raise ValueError(f"{name} returned NaN or infinity, expected finite scores")
    if recording() and logits.requires_grad and not scores.requires_grad:
        raise ValueError(f"{name} has no gradient in the logits; compute with minidl's ops on them, not on their .data")
    if N > 1:
        with no_grad():
            alone = f(Tensor(logits.data[:1]), target[:1]).data
        rounding = float(np.finfo(logits.dtype).eps) ** 0.5 * float(abs(logits.data[0]).max() + abs(scores.data[0]))
        if alone.shape != (1,) or abs(float(alone[0]) - float(scores.data[0])) > rounding:
            raise ValueError(f"{name} gives an image another score beside others than alone; take sums over axis 1 alone")
    return scores


def name_of(output: Output) -> str:
    """What the score is called: the word, or the name of the function; "score" where that has none."""
    name = output if isinstance(output, str) else getattr(output, "__name__", "<lambda>")
    return "score" if name == "<lambda>" else name


def exact_score(logits: Array, target: Array, output: Output) -> Array:
    """`score` in float64: those of a sure model differ by less than float32 can tell, though its logits do not."""
    return score(Tensor(logits.astype("float64")), target, output).data


def log_probability(logits: Tensor, target: Array, output: Output) -> Tensor:
    """log p_c (N,), by which methods judge how much of a class is left, whatever score they climb: as p_c may be no float.

    p_c is that of the softmax; that of the sigmoid where this is the score, or there is one logit.
    """
    if output == "sigmoid" or logits.shape[1] == 1:
        return -ops.softplus(-score(logits, target, "logit"))
    return score(logits, target, "logprob")


def decisions(logits: Tensor) -> Tensor:
    """Logits (N,K), one for each answer: of one logit z, (-z/2, z/2) for no and yes, whose softmax is that of the sigmoid."""
    return ops.concat([-0.5 * logits, 0.5 * logits], axis=1) if logits.shape[1] == 1 else logits


def runner_up(logits: Array, target: Array) -> Array:
    """The best class (N,) besides `target`, of logits (N,K), K > 1."""
    xp = array_module(logits)
    others = logits.copy()
    others[xp.arange(len(target)), target] = -np.inf
    return others.argmax(1)


def targets(logits: Array, target: Target, name: str = "target") -> Array:
    """One class an image (N,) int64: the given ones, one for all, or with None the largest of the logits (N,K).

    Raises TypeError where they are no integers, ValueError where they are not N of the classes 0 to K-1; `name` is what the
    error calls them.
    """
    xp, (N, K) = array_module(logits), logits.shape
    if (asked := _asked.value) is not None:
        asked.append(K)
    if target is None:
        return logits.argmax(1).astype("int64")
    classes = array_like(target, logits)
    if classes.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a class as an integer, or an array of {N} of them, got {target!r}")
    if classes.shape not in ((), (N,)):
        raise ValueError(f"{name}: expected one class, or one for each of the {N} images, got shape {classes.shape}")
    if not bool(((classes >= 0) & (classes < K)).all()):
        known = f"one of the classes 0 to {K - 1}" if K > 1 else "0, the only class of a model with one logit"
        raise ValueError(f"{name}: expected {known}, got {target!r}")
    return xp.broadcast_to(classes, (N,)).astype("int64")


def asking() -> Block[list[int]]:
    """Inside, the list grows by K at each question to a model with K logits, in this thread."""
    asked: list[int] = []
    return Block(asked, (_asked, asked))
