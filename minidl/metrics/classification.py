"""How often a classifier is right: accuracy, recall, sensitivity and specificity, and what one answer to everything scores.

Arrays in, on the CPU or the GPU, plain numbers out. labels (N,) are integers in [0, K), logits (N,K) are floats.
"""

from __future__ import annotations

import numpy as np

from minidl.array import Array
from minidl.metrics.answers import array_of, of_classes


def accuracy(logits: Array, labels: Array) -> float:
    """sum_n [argmax_k logits[n,k] = labels[n]] / N, top-1: the share of images whose largest logit is that of their label.

    logits (N,K), labels (N,). Raises ValueError for shapes that disagree, labels outside 0 to K-1, and logits that are NaN,
    TypeError for labels that are no integers, and for what is no array of numbers.
    """
    logits, labels = of_classes(logits, labels)
    return float((logits.argmax(1) == labels).mean())


def majority_accuracy(labels: Array, train_labels: Array | None = None) -> float:
    """max_k #{n: labels[n] = k} / N: the accuracy of one answer to everything, the most frequent class.

    What an accuracy is worth shows beside it: where 80% of the images are benign, "always benign" is right about 80%. Its
    balanced accuracy is 1/K.

    labels (N,) integers. train_labels (M,): where they are given, the most frequent class is that of these, and of several
    the first. Raises ValueError for another shape or no label, TypeError for labels that are no integers.
    """
    known = [_integers(labels, "labels")]
    known += [] if train_labels is None else [_integers(train_labels, "train_labels")]
    classes, counts = np.unique(known[-1], return_counts=True)
    return float((known[0] == classes[counts.argmax()]).mean())


def confusion_matrix(logits: Array, labels: Array) -> Array:
    """(K,K) int64 on the CPU: entry [t, p] counts the images of class t that were taken for class p.

    logits (N,K), labels (N,); what is raised is as of `accuracy`.
    """
    logits, labels = of_classes(logits, labels)
    K = logits.shape[1]
    return np.bincount(K * labels + logits.argmax(1), minlength=K * K).reshape(K, K)


def recall_per_class(logits: Array, labels: Array) -> Array:
    """confusion[t,t] / sum_p confusion[t,p], (K,) float64: the share of the images of class t that were found.

    NaN for a class without images, of which nothing is known. logits (N,K), labels (N,); what is raised is as of `accuracy`.
    """
    confusion = confusion_matrix(logits, labels)
    count = confusion.sum(1)
    return np.where(count > 0, confusion.diagonal() / np.maximum(count, 1), np.nan)


def balanced_accuracy(logits: Array, labels: Array) -> float:
    """mean_t confusion[t,t] / sum_p confusion[t,p] over the classes t that occur: 1/K for one answer to everything.

    logits (N,K), labels (N,); what is raised is as of `accuracy`. Brodersen, Ong, Stephan and Buhmann 2010, "The balanced
    accuracy and its posterior distribution".
    """
    return float(np.nanmean(recall_per_class(logits, labels)))


def sensitivity(decisions: Array, labels: Array) -> float:
    """TP / (TP + FN): the share of the ones that were taken for ones. Of two classes it is the recall of class 1.

    decisions (N,): zeros and ones, or bools, as `scores >= threshold` and `OperatingPoint.decide` give. labels (N,): zeros
    and ones. Raises ValueError for shapes that disagree, for other values, and where no label is 1, TypeError for what is no
    array of numbers. Yerushalmy 1947, "Statistical problems in assessing methods of medical diagnosis, with special reference
    to X-ray techniques".
    """
    return _share_found(decisions, labels, 1, "sensitivity")


def specificity(decisions: Array, labels: Array) -> float:
    """TN / (TN + FP): the share of the zeros that were taken for zeros. Of two classes it is the recall of class 0.

    Raises ValueError where no label is 0; the arguments, what else is raised and the source are as in `sensitivity`.
    """
    return _share_found(decisions, labels, 0, "specificity")


def _share_found(decisions: Array, labels: Array, k: int, name: str) -> float:
    decisions, labels = array_of(decisions, "decisions"), array_of(labels, "labels")
    if decisions.ndim != 1 or decisions.shape != labels.shape:
        raise ValueError(f"decisions and labels: expected (N,) each, got {decisions.shape} and {labels.shape}")
    if not np.isin(decisions, (0, 1)).all():
        raise ValueError(
            f"decisions: expected zeros and ones, got values {np.unique(decisions)[:10]}; of scores write scores >= threshold"
        )
    if not np.isin(labels, (0, 1)).all() or not (labels == k).any():
        raise ValueError(f"labels: expected zeros and ones, some {k} for the {name}, got values {np.unique(labels)[:10]}")
    return float((decisions[labels == k] == k).mean())


def _integers(labels: Array, name: str) -> Array:
    labels = array_of(labels, name)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {labels.dtype}")
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"{name}: expected (N,), N > 0, got {labels.shape}")
    return labels
