"""The answers that a score is made of, and what is known: arrays on the CPU, checked. NaN is no answer: it is an error."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.array import Array, is_array, is_float, plain_array, to_cpu


def array_of(values: Any, name: str) -> Array:
    """An array of numbers or bools, from either device. Raises TypeError for anything else."""
    if not is_array(values):
        raise TypeError(f"{name}: expected an array, got {type(values).__name__}; write np.asarray({name})")
    values = plain_array(to_cpu(values), name)
    if values.dtype.kind not in "fiub" and not is_float(values.dtype):
        raise TypeError(f"{name}: expected an array of numbers, got {values.dtype}")
    return values


def of_two(scores: Any, labels: Any) -> tuple[Array, Array]:
    """scores (N,), float64 or integers, and where the label is 1, (N,) bool. Some labels are 1 and all others 0."""
    scores, labels = array_of(scores, "scores"), array_of(labels, "labels")
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores and labels: expected (N,) each, got {scores.shape} and {labels.shape}")
    scores = finite(scores)
    P, Q = int((labels == 1).sum()), int((labels == 0).sum())
    if P + Q != len(labels) or P == 0 or Q == 0:
        raise ValueError(f"labels: expected zeros and ones, some of each, got values {np.unique(labels)[:10]}")
    return scores, labels == 1


def finite(scores: Array) -> Array:
    """As float64, but for integers, which may have more digits."""
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: {np.count_nonzero(~np.isfinite(scores))} of {len(scores)} are not finite")
    return scores if scores.dtype.kind in "iu" else scores.astype(np.float64)


def of_classes(logits: Any, labels: Any, name: str = "logits") -> tuple[Array, Array]:
    """logits (N,K), and the labels (N,) in [0, K) as int64."""
    logits, labels = array_of(logits, name), array_of(labels, "labels")
    if logits.ndim != 2 or labels.shape != (len(logits),) or logits.size == 0:
        raise ValueError(f"{name} and labels: expected (N,K) and (N,), N > 0, got {logits.shape} and {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels: expected integers, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        one = f"; of one logit z write np.concatenate([0 * z, z], axis=1) for the {name}" if logits.shape[1] == 1 else ""
        raise ValueError(f"labels: expected 0 to {logits.shape[1] - 1}, got {labels.min()} to {labels.max()}{one}")
    if bad := np.count_nonzero(np.isnan(logits).any(1)):
        raise ValueError(f"{name}: expected numbers, got NaN in {bad} of {len(logits)} rows")
    return logits, labels.astype(np.int64)  # in which K labels + p fits


def of_probabilities(probabilities: Any, labels: Any) -> tuple[Array, Array]:
    """probabilities (N,K) as float64, whose rows add up to 1, and the labels; of one, p (N,1), both, 1 - p and p."""
    p = array_of(probabilities, "probabilities").astype(np.float64)
    if p.ndim == 2 and p.shape[1] == 1:
        p = np.concatenate([1 - p, p], axis=1)
    p, labels = of_classes(p, labels, "probabilities")
    off = np.flatnonzero((p.min(1) < 0) | (p.max(1) > 1) | (abs(p.sum(1) - 1) > 2e-3))  # halves have three digits
    if len(off):
        row = np.array2string(p[off[0]], precision=4, threshold=6)
        raise ValueError(
            f"probabilities: expected rows in [0, 1] that add up to 1, got {row} in row {off[0]}; "
            "of logits pass metrics.probabilities(logits)"
        )
    return p, labels
