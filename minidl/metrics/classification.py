"""How good a classifier is: accuracy, balanced accuracy, confusion matrix and, for two classes, the area under the ROC curve.

Arrays in, on the CPU or the GPU, plain numbers out. labels (N,) are integers in [0, K), logits (N,K) are floats.
"""

from __future__ import annotations

import numpy as np

from minidl.array import Array, to_cpu


def accuracy(logits: Array, labels: Array) -> float:
    """sum_n [argmax_k logits[n,k] = labels[n]] / N, top-1: the share of images whose largest logit is that of their label.

    logits (N,K), labels (N,). Raises ValueError for shapes that disagree, labels outside 0 to K-1, and logits that are NaN,
    TypeError for labels that are no integers.
    """
    logits, labels = _checked(logits, labels)
    return float((logits.argmax(1) == labels).mean())


def confusion_matrix(logits: Array, labels: Array) -> Array:
    """(K,K) int64 on the CPU: entry [t, p] counts the images of class t that were taken for class p.

    logits (N,K), labels (N,); what is raised is as of `accuracy`.
    """
    logits, labels = _checked(logits, labels)
    K = logits.shape[1]
    return np.bincount(K * labels + logits.argmax(1), minlength=K * K).reshape(K, K)


def balanced_accuracy(logits: Array, labels: Array) -> float:
    """mean_t confusion[t,t] / sum_p confusion[t,p] over the classes t that occur: 1/K for one answer to everything.

    logits (N,K), labels (N,); what is raised is as of `accuracy`. Brodersen, Ong, Stephan and Buhmann 2010, "The balanced
    accuracy and its posterior distribution".
    """
    confusion = confusion_matrix(logits, labels)
    count = confusion.sum(1)
    return float((confusion.diagonal()[count > 0] / count[count > 0]).mean())


def auc(scores: Array, labels: Array) -> float:
    """P(score of a 1 > score of a 0) + P(equal) / 2 over all pairs of an image with label 1 and one with label 0.

    By ranks (Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger than the
    other"): AUC = (R - P (P + 1) / 2) / (P Q), with P ones, Q zeros, and R the sum of the ranks of the
    ones among all scores, smallest first, ties sharing their mean rank. scores, labels (N,). Raises ValueError where a
    label is neither 0 nor 1, one of the two is absent, or a score is not finite.
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores and labels: expected (N,) each, got {scores.shape} and {labels.shape}")
    scores, labels = to_cpu(scores), to_cpu(labels)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: {np.count_nonzero(~np.isfinite(scores))} of {len(scores)} are not finite")
    P, Q = int((labels == 1).sum()), int((labels == 0).sum())
    if P + Q != len(labels) or P == 0 or Q == 0:
        raise ValueError(f"labels: expected zeros and ones, some of each, got values {np.unique(labels)[:10]}")
    _, which, ties = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(ties) - (ties - 1) / 2  # of each different score
    return float((rank[which][labels == 1].sum() - P * (P + 1) / 2) / (P * Q))


def _checked(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Both on the CPU, the labels as int64. NaN is no answer: it is an error."""
    if logits.ndim != 2 or labels.shape != (len(logits),) or len(logits) == 0:
        raise ValueError(f"logits and labels: expected (N,K) and (N,), N > 0, got {logits.shape} and {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels: expected integers, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels: expected 0 to {logits.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    logits, labels = to_cpu(logits), to_cpu(labels).astype(np.int64)  # in which K labels + p fits
    if bad := np.count_nonzero(np.isnan(logits).any(1)):
        raise ValueError(f"logits: expected numbers, got NaN in {bad} of {len(logits)} rows")
    return logits, labels
