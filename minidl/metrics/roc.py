"""How well scores order two classes, whatever the threshold: ROC and precision-recall curves, and the areas below them.

A score says how much an image looks like class 1: a logit, a probability, or a difference of logits. Where there are more
classes, it is one class against the rest: `roc_curve(probabilities[:, k], labels == k)`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl.arguments import one_of
from minidl.array import Array
from minidl.metrics.answers import of_probabilities, of_two


class ROCCurve(NamedTuple):
    """One point for each threshold, from (0, 0) to (1, 1): what is called 1 where score >= thresholds[i].

    fpr: (T,), the share of the zeros that are called 1, 1 - specificity. tpr: (T,), the share of the ones, the sensitivity.
    thresholds: (T,), falling, from infinity, at which nothing is called 1.
    """

    fpr: Array
    tpr: Array
    thresholds: Array

    @property
    def auc(self) -> float:
        """The area below the curve, by trapezoids: `auc` of the scores."""
        return float(np.trapezoid(self.tpr, self.fpr))


class PrecisionRecallCurve(NamedTuple):
    """One point for each threshold, in rising order, and the end, recall 0 with precision 1.

    precision: (T+1,), the share of what is called 1 that is 1; the first is the share of the ones among all images. recall:
    (T+1,), the share of the ones that are called 1, the sensitivity. thresholds: (T,).
    """

    precision: Array
    recall: Array
    thresholds: Array

    @property
    def average_precision(self) -> float:
        """The area below the curve, as steps: `average_precision` of the scores."""
        return float(-(np.diff(self.recall) * self.precision[:-1]).sum())


def roc_curve(scores: Array, labels: Array) -> ROCCurve:
    """(FP(t) / Q, TP(t) / P) for every threshold t: infinity, and each different score, largest first.

    TP and FP count the ones and the zeros with score >= t; P ones and Q zeros are all there are. Equal scores are one step, a
    slope in the curve. The arguments, scores (N,) and labels (N,), and what is raised are as of `auc`. Fawcett 2006, "An
    introduction to ROC analysis".
    """
    tp, fp, thresholds = counts_by_threshold(*of_two(scores, labels))
    start = np.zeros(1)
    fpr, tpr = (np.concatenate([start, n / n[-1]]) for n in (fp, tp))
    return ROCCurve(fpr, tpr, np.concatenate([start + np.inf, thresholds]))


def auc(scores: Array, labels: Array) -> float:
    """P(score of a 1 > score of a 0) + P(equal) / 2 over all pairs of an image with label 1 and one with label 0.

    By ranks (Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger than the
    other"): AUC = (R - P (P + 1) / 2) / (P Q), with P ones, Q zeros, and R the sum of the ranks of the
    ones among all scores, smallest first, ties sharing their mean rank. scores, labels (N,). Raises ValueError where a
    label is neither 0 nor 1, one of the two is absent, or a score is not finite, TypeError for what is no array of numbers.
    """
    scores, ones = of_two(scores, labels)
    P, Q = int(ones.sum()), int((~ones).sum())
    _, which, ties = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(ties) - (ties - 1) / 2  # of each different score
    return float((rank[which][ones].sum() - P * (P + 1) / 2) / (P * Q))


def auc_per_class(probabilities: Array, labels: Array) -> Array:
    """The AUC of p_k for class k against the rest, (K,) float64; NaN for a class of no image, or of all.

    The arguments, probabilities (N,K) and labels (N,), the source and what is raised are as in `macro_auc`, but classes may be
    absent.
    """
    p, labels = of_probabilities(probabilities, labels)
    of_class = [labels == k for k in range(p.shape[1])]
    return np.array([auc(p[:, k], ones) if 0 < ones.sum() < len(ones) else np.nan for k, ones in enumerate(of_class)])


def macro_auc(probabilities: Array, labels: Array, multi_class: str = "ovr") -> float:
    """mean_k AUC_k, every class counting alike.

    "ovr", one versus rest: AUC_k of p_k, for class k against all others. "ovo", one versus one: over pairs of classes, the
    mean of the AUC of p_a and that of p_b for the images of a and b alone, which the shares of the classes do not change.
    Hand and Till 2001, "A simple generalisation of the area under the ROC curve for multiple class classification problems".

    Args:
        probabilities: (N,K), or (N,1) of a sigmoid. Logits would order the images otherwise, and are refused.
        labels: (N,) integers in [0, K).
        multi_class: "ovr" or "ovo".

    Raises ValueError for shapes that disagree, rows that do not add up to 1, NaN, a class without images, or another
    multi_class, TypeError for labels that are no integers, and for what is no array of numbers.
    """
    p, labels = of_probabilities(probabilities, labels)
    one_of(multi_class, "multi_class", ("ovr", "ovo"))
    K = p.shape[1]
    count = np.bincount(labels, minlength=K)
    if absent := np.flatnonzero(count == 0).tolist():
        raise ValueError(f"labels: expected images of all {K} classes, got none of {absent[:10]}; see auc_per_class")
    if multi_class == "ovr":
        return float(auc_per_class(p, labels).mean())
    found = []
    for a in range(K):
        for b in range(a + 1, K):
            pair = (labels == a) | (labels == b)
            found += [auc(p[pair, k], labels[pair] == k) for k in (a, b)]
    return float(np.mean(found))


def precision_recall_curve(scores: Array, labels: Array) -> PrecisionRecallCurve:
    """(TP(t) / P, TP(t) / (TP(t) + FP(t))), recall and precision, for every different score t as a threshold.

    TP, FP and P are as in `roc_curve`, and so are the arguments, scores (N,) and labels (N,), and what is raised. Davis and
    Goadrich 2006, "The relationship between precision-recall and ROC curves".
    """
    tp, fp, thresholds = counts_by_threshold(*of_two(scores, labels))
    precision, recall = tp / (tp + fp), tp / tp[-1]
    return PrecisionRecallCurve(np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0), thresholds[::-1])


def average_precision(scores: Array, labels: Array) -> float:
    """sum_i (recall_i - recall_(i-1)) precision_i over the thresholds, largest first: the share of ones, if scores say nothing.

    No line is drawn between the points, which would promise too much (Davis and Goadrich 2006, "The relationship between
    precision-recall and ROC curves"). The arguments, scores (N,) and labels (N,), and what is raised are as of `auc`.
    """
    return precision_recall_curve(scores, labels).average_precision


def counts_by_threshold(scores: Array, ones: Array) -> tuple[Array, Array, Array]:
    """For each different score, largest first, how many ones and how many zeros have at least that; and the scores."""
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each run of equal scores
    tp = np.cumsum(ones[order])[last]
    return tp, last + 1 - tp, ordered[last]
