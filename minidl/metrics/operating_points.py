"""Where to draw the line: a threshold chosen on one set for what is wanted there, and what it gives on another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl.arguments import number
from minidl.array import Array
from minidl.metrics import classification
from minidl.metrics.answers import array_of, finite, of_two
from minidl.metrics.roc import counts_by_threshold

ROUNDING = 1e-9  # of a share that is wanted: 1 - 0.05 is no less than 19 of 20


class OperatingPoint(NamedTuple):
    """A threshold of scores, and the sensitivity and specificity of `score >= threshold` on some set."""

    threshold: float
    sensitivity: float
    specificity: float

    def __str__(self) -> str:
        return f"sensitivity {self.sensitivity:.3f}, specificity {self.specificity:.3f} at {self.threshold:.4g}"

    def decide(self, scores: Array) -> Array:
        """scores >= threshold, in the shape of the scores, any shape, as bool. In float64, so that float32 rounds nothing.

        The scores must be of the kind that the threshold was chosen on. Raises ValueError where one is not finite, TypeError
        for what is no array of numbers.
        """
        return finite(array_of(scores, "scores")) >= self.threshold

    def apply(self, scores: Array, labels: Array) -> OperatingPoint:
        """The same threshold, with the sensitivity and specificity that it has on these images.

        scores (N,), labels (N,). Raises ValueError where a label is neither 0 nor 1, one of the two is absent, or a score is
        not finite, TypeError for what is no array of numbers.
        """
        scores, ones = of_two(scores, labels)
        decisions = self.decide(scores)
        found = classification.sensitivity(decisions, ones), classification.specificity(decisions, ones)
        return OperatingPoint(self.threshold, *found)


def operating_point(
    scores: Array, labels: Array, sensitivity: float | None = None, specificity: float | None = None
) -> OperatingPoint:
    """The threshold that maximises sensitivity + specificity - 1, or the best one that reaches what is wanted.

    With a `sensitivity` it has the highest specificity of those that reach it, and with a `specificity` the highest
    sensitivity; with both it reaches both. It lies halfway between two scores, so that rounding moves no image across.

    Choose it on images that the net was not trained on, and `apply` it to others: on the images that it was chosen on, it
    looks better than it is. Youden 1950, "Index for rating diagnostic tests".

    Args:
        scores, labels: (N,) each, as of `roc_curve`.
        sensitivity, specificity: the least that is wanted, in (0, 1].

    Raises ValueError where no threshold reaches that without calling all images alike, a label is neither 0 nor 1, one of the
    two is absent, a score is not finite, or a number is out of range, TypeError for what are no numbers.
    """
    least_sensitivity = 0.0 if sensitivity is None else number(sensitivity, "sensitivity", "(0, 1]")
    least_specificity = 0.0 if specificity is None else number(specificity, "specificity", "(0, 1]")
    tp, fp, values = counts_by_threshold(*of_two(scores, labels))
    P, Q = tp[-1], fp[-1]
    if len(values) == 1:
        raise ValueError(f"scores: expected different ones to choose a threshold from, got {len(scores)} times {values[0]:g}")
    tp, fp = tp[:-1], fp[:-1]  # the last threshold would call every image 1
    sens, spec, youden = tp / P, (Q - fp) / Q, tp * Q - fp * P
    sensitive, specific = sens >= least_sensitivity - ROUNDING, spec >= least_specificity - ROUNDING
    reached = sensitive & specific
    if not sensitive.any():
        _out_of_reach("sensitivity", least_sensitivity, sens.max(), 1)
    if not specific.any():
        _out_of_reach("specificity", least_specificity, spec.max(), 0)
    if not reached.any():
        raise ValueError(
            f"sensitivity, specificity: expected what one threshold reaches, got {least_sensitivity:g} and "
            f"{least_specificity:g}; at that sensitivity the specificity is at most {spec[sensitive].max():.4g}"
        )
    one_wanted = (sensitivity is None) != (specificity is None)
    gain = youden if not one_wanted else spec if specificity is None else sens
    best = int(np.lexsort((youden, gain, reached))[-1])  # of equals the last, the more sensitive one
    high, low = values[best], values[best + 1]
    threshold = high / 2 + low / 2
    return OperatingPoint(float(threshold if low < threshold else high), float(sens[best]), float(spec[best]))


def _out_of_reach(name: str, wanted: float, most: float, answer: int) -> None:
    raise ValueError(
        f"{name}: expected what a threshold reaches, here at most {most:.4g}, got {wanted:g}; "
        f"more takes calling every image {answer}"
    )
