"""Whether a probability means what it says: of the images with p = 0.8, are 80% right? And how to make it so.

    T = metrics.fit_temperature(logits, labels)  # on images that the net was not trained on
    p = metrics.probabilities(other_logits, T)
    metrics.expected_calibration_error(p, other_labels)

Everywhere, logits are (N,K), or (N,1) for one logit z of a sigmoid, which counts as the two logits 0 and z.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl import notebook
from minidl.arguments import count, number
from minidl.array import Array
from minidl.metrics.answers import array_of, of_classes, of_probabilities
from minidl.stable import log_softmax

WIDE = 700.0  # of log T on either side: what exp takes
ROUNDING = 1e-12  # of means of logits, in units of the widest row


class Reliability(NamedTuple):
    """Images in bins of what was predicted, and how often that came true.

    edges: (B+1,), the bins (edges[b], edges[b+1]]; the first one holds 0, too. counts: (B,), images in each. confidence: (B,),
    the mean of what was predicted, frequency: (B,), the share for which it came true, both NaN in an empty bin.
    """

    edges: Array
    counts: Array
    confidence: Array
    frequency: Array

    @property
    def ece(self) -> float:
        """sum_b counts_b / N |frequency_b - confidence_b|, the expected calibration error."""
        some = self.counts > 0
        return float((self.counts * abs(self.frequency - self.confidence))[some].sum() / self.counts.sum())

    def _repr_html_(self) -> str:
        bins = [f"({low:.3g}, {high:.3g}]" for low, high in zip(self.edges[:-1], self.edges[1:], strict=True)]
        shares = [
            [notebook.number(p) if p == p else "" for p in column.tolist()] for column in (self.confidence, self.frequency)
        ]
        rows = zip(bins, (f"{n:,}" for n in self.counts), *shares, strict=True)
        foot = ["expected calibration error", f"{self.counts.sum():,}", "", notebook.number(self.ece)]
        return notebook.table(["predicted", "images", "mean predicted", "came true"], rows, foot=foot)


def probabilities(logits: Array, temperature: float = 1.0) -> Array:
    """exp(z_k / T) / sum_j exp(z_j / T) of logits (N,K), as float64; of one logit (N,1), both, 1 - sigmoid(z / T) and that.

    A temperature T > 1 makes every answer less sure, and changes none. Raises ValueError for another shape, logits that are
    not finite and a temperature that is no positive number, TypeError for what are no numbers. Guo, Pleiss, Sun and Weinberger
    2017, "On calibration of modern neural networks".
    """
    return np.exp(log_softmax(_finite_logits(logits) / number(temperature, "temperature", "(0, inf)"), 1))


def reliability(probabilities: Array, labels: Array, bins: int = 15, target: int | None = None) -> Reliability:
    """Per bin b: the mean of what was predicted, and the share of the images for which it came true.

    The bins are ((b - 1) / B, b / B], B of equal width. Without a target, predicted is the largest p of each image, and it
    comes true where that is the label's. With a target k, predicted is p_k, and it comes true where the label is k: the way to
    ask whether "30% malignant" means that. The default of 15 bins is that of Guo, Pleiss, Sun and Weinberger 2017, "On
    calibration of modern neural networks".

    Args:
        probabilities: (N,K), or (N,1) of a sigmoid.
        labels: (N,) integers in [0, K).

    Raises ValueError for shapes that disagree, rows that do not add up to 1, NaN, labels, bins or a target out of range,
    TypeError for what are no integers, and for what is no array of numbers.
    """
    p, labels = of_probabilities(probabilities, labels)
    bins = count(bins, "bins")
    if target is None:
        predicted, true = p.max(1), p.argmax(1) == labels
    else:
        target = count(target, "target", 0)
        if target >= p.shape[1]:
            raise ValueError(f"target: expected a class from 0 to {p.shape[1] - 1}, got {target}")
        predicted, true = p[:, target], labels == target
    edges = np.linspace(0, 1, bins + 1)
    of_bin = np.searchsorted(edges[1:-1], predicted)
    images = np.bincount(of_bin, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as an empty bin has it
        confidence, frequency = (np.bincount(of_bin, values, bins) / images for values in (predicted, true))
    return Reliability(edges, images, confidence, frequency)


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = 15, target: int | None = None) -> float:
    """ECE = sum_b N_b / N |frequency_b - confidence_b|, over the bins of `reliability`.

    It depends on the number of bins: say it beside the error. With few images it is above 0 even where the probabilities are
    right. The arguments, probabilities (N,K) and labels (N,), the source and what is raised are as in `reliability`.
    """
    return reliability(probabilities, labels, bins, target).ece


def brier_score(probabilities: Array, labels: Array) -> float:
    """Two classes: mean_n (p_n1 - y_n)^2, in [0, 1]. More: mean_n sum_k (p_nk - [k = y_n])^2, in [0, 2].

    0 is right and sure. The second formula would give twice the first, as Brier wrote it; the first is what is meant by the
    score of two classes today. The arguments, probabilities (N,K) or (N,1) and labels (N,), and what is raised are as in
    `reliability`. Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    p, labels = of_probabilities(probabilities, labels)
    if p.shape[1] == 2:
        return float(((p[:, 1] - labels) ** 2).mean())
    return float(((p - np.eye(p.shape[1])[labels]) ** 2).sum(1).mean())


def negative_log_likelihood(logits: Array, labels: Array) -> float:
    """-mean_n log p_n[labels[n]] with p = softmax(logits): the cross-entropy, from logits, so that no p is rounded to 0.

    logits (N,K), or (N,1) of a sigmoid; labels (N,). Raises ValueError for shapes that disagree, logits that are not finite
    and labels out of range, TypeError for labels that are no integers, and for what is no array of numbers.
    Good 1952, "Rational decisions".
    """
    z, labels = of_classes(_finite_logits(logits), labels)
    return float(-log_softmax(z, 1)[np.arange(len(z)), labels].mean())


def fit_temperature(logits: Array, labels: Array) -> float:
    """argmin_T -mean_n log softmax(z_n / T)[y_n], the temperature that makes probabilities most likely.

    In b = 1 / T that is convex, and its derivative, mean_n (sum_k p_nk z_nk - z_n[y_n]) with p_n = softmax(b z_n), crosses 0
    once. The search halves an interval of log T around the crossing, down to its last bits. Fit T on images that the net was
    not trained on. Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks".

    Args:
        logits: (N,K), or (N,1) of a sigmoid.
        labels: (N,) integers in [0, K).

    Raises ValueError where no temperature is best: each label has the largest logit, so that T = 0 is; or the logits say
    nothing of the labels, or the opposite, so that T is infinite. What else is raised is as of `negative_log_likelihood`.
    """
    z, labels = of_classes(_finite_logits(logits), labels)
    z = z - z.max(1, keepdims=True)
    unit = -z.min() or 1.0  # of T: the widest row
    z = z / unit
    of_label = z[np.arange(len(z)), labels].mean()

    def rises(log_t: float) -> bool:
        """Whether the likelihood still rises with the temperature."""
        e = np.exp(z * np.exp(-log_t))
        return bool(((e * z).sum(1) / e.sum(1)).mean() > of_label)

    low, high = -WIDE, WIDE
    if z.mean() >= of_label - ROUNDING or rises(high):
        raise ValueError(
            "logits: expected higher ones for the labels than for other classes, got none or lower ones on average: "
            "the higher the temperature, the likelier, and none is best"
        )
    if not rises(low):
        raise ValueError(
            "logits: expected an image at least whose label has not the largest one, got none: the lower the temperature, "
            "the likelier, and none is best; take more images"
        )
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rises(middle) else (low, middle)
    return float(np.exp(high) * unit)


def _finite_logits(logits: Array) -> Array:
    """(N,K) float64, K > 1"""
    z = array_of(logits, "logits").astype(np.float64)
    if z.ndim != 2 or z.size == 0:
        raise ValueError(f"logits: expected (N,K), neither of these 0, got {z.shape}")
    if bad := np.count_nonzero(~np.isfinite(z).all(1)):
        raise ValueError(f"logits: expected finite numbers, got others in {bad} of {len(z)} rows")
    return np.concatenate([np.zeros_like(z), z], axis=1) if z.shape[1] == 1 else z
